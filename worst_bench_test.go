package paywall_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// BenchmarkWorstRequest looks for the dearest unpaid request by changing dear
// ones at random, with several price lists, through the whole of Caddy's server
// but for the socket. What it reports as worst/ordinary, measured over a
// connection, is to stay below 20: no stranger gets more work out of us for a
// request than twenty others for theirs. Without the connection and the parsing,
// which an ordinary request mostly consists of, it is worst/ordinary-inside.
func BenchmarkWorstRequest(b *testing.B) {
	fac := gate.NewFacilitator(b)
	for _, list := range []struct {
		name, lines string
		fill        []string // what makes its globs look at much
	}{
		{"one prefix", "price /articles/* $0.01", []string{"mid", "articles/"}},
		{"typical", `price /articles/* *.pdf *.zip /users/*/export /api/render *download* $0.01
			free /public/* *.css`, []string{"downloadownloa", "users/", "export"}},
		{"ten inside", "price *book* *song* *film* *game* *chart* *map* *photo* *font* *paper* *data* $0.01", []string{"bosofigachmaphfopada", "boo"}},
		{"globs", "price /*/*/*/export $0.01\nprice /*/x/* $0.02", []string{"x/a/", "export", "aaaaaaaa"}},
		{"two hundred inside", "price " + manyInside(200) + " $0.01", []string{"w1w2w3w4w5w6w7w8w9w", "w"}},
		{"methods", "price GET /a/* $0.01\nprice POST PUT /b/* $0.02\nfree PATCH *c*", []string{"a/", "b/", "c"}},
		{"programs", "price /a.b /buy.phtml /cgi-bin/x $0.01\nprice /a/* $0.02", []string{"a.b/", "buy.phtml/", "cgi-bin/x/"}},
		{"endings", "price *.html *.php* /a/*.htm $0.01\nprice / /paper.html /index/x $0.02", []string{"a/", "index/", "a.php/", "_next/data/"}},
		{"folders", "price /posts/*/ */ /users/*/full/ *.html /a/*.htm $0.01\nprice *.org *.com $0.02", []string{"a.html/", "index.html/", "posts/", "x../", "a.org/", ".data"}},
	} {
		b.Run(list.name, func(b *testing.B) {
			address := loopback.FreeAddress(b)
			server := serversOf(b, fac, `http://`+address+` {
				paywall {
					accept base-sepolia usdc `+gate.PayTo+`
					facilitator fake
					price /ordinary/* $0.01 "A thing"
					`+list.lines+`
				}
				respond ok
			}`)[address]
			ordinary := strange{method: http.MethodGet, paths: []string{"/ordinary/x"}}
			random := rand.New(rand.NewSource(1)) //nolint:gosec // the same search every time
			for b.Loop() {
				var tops []strange
				for range 6 { // climb from several places
					at := beginStrange(random, list.fill)
					height := least(at.run(server, address, 3))
					for range 100 {
						next := at.change(random, list.fill)
						if c := least(next.run(server, address, 3)); c > height {
							at, height = next, c
						}
					}
					tops = append(tops, at)
				}
				// Half of the runs take longer, and half shorter: the collector of
				// garbage and the neighbours spoil a mean.
				usual := median(ordinary.run(server, address, 2000))
				worst, cost := strange{}, time.Duration(0)
				for _, top := range tops {
					if c := median(top.run(server, address, 100)); c > cost {
						worst, cost = top, c
					}
				}
				usual = min(usual, median(ordinary.run(server, address, 2000)))
				b.ReportMetric(float64(cost)/float64(usual), "worst/ordinary-inside")
				wire, usualWire := median(worst.send(b, address, 300)), median(ordinary.send(b, address, 2000))
				b.ReportMetric(float64(wire)/float64(usualWire), "worst/ordinary")
				b.ReportMetric(float64(usualWire.Nanoseconds())/1000, "ordinary-wire-µs")
				b.ReportMetric(float64(cost.Microseconds()), "worst-µs")
				b.ReportMetric(float64(usual.Nanoseconds())/1000, "ordinary-µs")
				b.Log(worst)
			}
		})
	}
}

// String is the request in short.
func (s strange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q, methods %q, query of %d bytes %.40s, %d prefixes, CORS %.40q", s.method, s.odd, s.methods, len(s.query), s.query, len(s.prefixes), s.cors)
	for _, p := range s.paths {
		fmt.Fprintf(&b, "\n%d bytes %.100s", len(p), p)
	}
	return b.String()
}

func manyInside(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = "*w" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "x*"
	}
	return strings.Join(words, " ")
}

// strange is a request that may be dear.
type strange struct {
	method  string
	paths   []string // that of the request line, and those that headers name
	methods []string
	// prefixes are what it says that its path begins with, each under one of several names.
	prefixes []string
	query    string
	// cors are what a browser sends for a page of another site: its origin, and the
	// method and the headers that it asks about.
	cors [3]string
	odd  []string // what its paths are made of
}

var (
	oddParts = []string{
		"/", "//", "/../", "/./", "%2f", "%252f", "%5c", ";a", ";", "%20", "%09", "%e9", "%c0%af", "%ef%bc%8f", "a.", "a::$DATA",
		"/a.php/", "/a.phtml/", "/a.b/", ".b", "%00", "%23", "%3f", "%u002f", "%25u002f", "%ef%b7%ba", "a%cc%81%cc%a7", "%ef%ac%81", "é", "A", "%253b", "%252e%252e/",
	}
	pathHeaderNames = []string{"X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Forwarded-Uri"}
	prefixNames     = []string{"X-Script-Name", "X-Forwarded-Prefix", "X-Forwarded-Script-Name", "Script-Name"}
	someMethods     = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "get", "FOO", "HEAD", "OPTIONS", "QUERY", "A", "B", "C"}
	pathLengths     = []int{20, 100, 300, 700, 1500, 3000, 4000, 8000, 12000}
)

func beginStrange(r *rand.Rand, fill []string) strange {
	s := strange{method: http.MethodGet, odd: []string{oddParts[r.Intn(len(oddParts))], oddParts[r.Intn(len(oddParts))], oddParts[r.Intn(len(oddParts))]}}
	for range 1 + r.Intn(9) {
		s.paths = append(s.paths, s.path(r, fill))
	}
	return s
}

// path makes a path, odd here and there.
func (s *strange) path(r *rand.Rand, fill []string) string {
	var b strings.Builder
	b.WriteByte('/')
	length, every := pathLengths[r.Intn(len(pathLengths))], []int{1, 3, 10, 40, 200, 100000}[r.Intn(6)]
	plain := fill[r.Intn(len(fill))]
	for b.Len() < length {
		if r.Intn(every) == 0 {
			b.WriteString(s.odd[r.Intn(len(s.odd))])
		} else {
			b.WriteString(plain)
		}
	}
	return b.String()
}

// change makes another request of one, which is of no more than 16 kB, or of as
// much as the first had.
func (s strange) change(r *rand.Rand, fill []string) strange {
	s.paths, s.methods, s.odd, s.prefixes = slices.Clone(s.paths), slices.Clone(s.methods), slices.Clone(s.odd), slices.Clone(s.prefixes)
	for range 1 + r.Intn(3) {
		switch r.Intn(13) {
		case 0:
			s.odd[r.Intn(len(s.odd))] = oddParts[r.Intn(len(oddParts))]
		case 1:
			if len(s.paths) < 10 {
				s.paths = append(s.paths, s.path(r, fill))
			}
		case 2:
			if len(s.paths) > 1 {
				s.paths = s.paths[:len(s.paths)-1]
			}
		case 3:
			s.methods = append(s.methods, someMethods[r.Intn(len(someMethods))])
		case 4:
			s.method = someMethods[r.Intn(len(someMethods))]
		case 5:
			s.query = []string{"", strings.Repeat("a=b&", 4000), strings.Repeat("%5f=&", 3000), strings.Repeat("_method=A&", 500), strings.Repeat("&", 30000)}[r.Intn(5)]
		case 6: // part of a path anew
			i := r.Intn(len(s.paths))
			p := s.paths[i]
			at := 1 + r.Intn(len(p))
			if at < len(p) {
				s.paths[i] = p[:at] + s.odd[r.Intn(len(s.odd))] + p[at:]
			}
		case 7: // some prefixes that the path has, or one that is none, often
			for n := r.Intn(10); n > 0; n-- {
				s.prefixes = append(s.prefixes, s.paths[0][:1+r.Intn(len(s.paths[0]))])
			}
		case 8:
			s.prefixes = [][]string{nil, slices.Repeat([]string{"a"}, 500), slices.Repeat([]string{"/"}, 500)}[r.Intn(3)]
		case 10: // a path in the query
			s.query = s.path(r, fill) + []string{"", "&a=b", "?a=b&_method=A", strings.Repeat("&a=b", 2000)}[r.Intn(4)]
		case 11:
			s.cors[r.Intn(len(s.cors))] = []string{
				"", "https://other.example", "null", "POST", "content-type,payment-signature", strings.Repeat("x-payment,", 1500), strings.Repeat("a,", 7000), strings.Repeat("A", 15000),
			}[r.Intn(8)]
		case 9: // shorter
			i := r.Intn(len(s.paths))
			s.paths[i] = s.paths[i][:1+r.Intn(len(s.paths[i]))]
		default:
			s.paths[r.Intn(len(s.paths))] = s.path(r, fill)
		}
	}
	return s
}

// run sends the request to the gate several times, and says how long each took.
func (s strange) run(server *caddyhttp.Server, address string, times int) []time.Duration {
	r := s.request(address)
	if r == nil {
		return []time.Duration{0}
	}
	w := &sink{header: http.Header{}}
	took := make([]time.Duration, times)
	for i := range took {
		clear(w.header)
		begin := time.Now()
		server.ServeHTTP(w, r)
		took[i] = time.Since(begin)
	}
	return took
}

// send sends the request so often over one connection, and says how long each answer
// took.
func (s strange) send(b *testing.B, address string, times int) []time.Duration {
	b.Helper()
	r := s.request(address)
	var wire bytes.Buffer
	fmt.Fprintf(&wire, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.RequestURI, address)
	_ = r.Header.Write(&wire)
	wire.WriteString("\r\n")
	var conn net.Conn
	var answers *bufio.Reader
	took := make([]time.Duration, 0, times)
	for range times {
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", address); err != nil {
				b.Fatal(err)
			}
			answers = bufio.NewReader(conn)
		}
		begin := time.Now()
		_, _ = conn.Write(wire.Bytes())
		res, err := http.ReadResponse(answers, r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		took = append(took, time.Since(begin))
		if res.Close {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
	return took
}

// request is the request, or nil if net/http would answer it.
func (s strange) request(address string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	u, err := r.URL.Parse("http://" + address + s.paths[0])
	if err != nil {
		return nil
	}
	u.RawQuery = s.query
	if len(s.methods) > 0 {
		u.RawQuery = "_method=" + strings.Join(s.methods, ",") + "&" + u.RawQuery
	}
	r.URL, r.RequestURI, r.Method = u, u.RequestURI(), s.method
	for i, p := range s.paths[1:] {
		name := pathHeaderNames[i%len(pathHeaderNames)]
		r.Header[name] = append(r.Header[name], p)
	}
	for i, name := range []string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} {
		if s.cors[i] != "" {
			r.Header.Set(name, s.cors[i])
		}
	}
	for i, p := range s.prefixes {
		name := prefixNames[i%len(prefixNames)]
		r.Header[name] = append(r.Header[name], p)
	}
	return r
}

func least(took []time.Duration) time.Duration { return slices.Min(took) }

func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}
