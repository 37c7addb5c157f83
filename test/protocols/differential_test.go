package protocols

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// The headers that the gate may add to, change in or remove from an answer to a
// paid request, and a request on its way to the upstream. docs/payments.md
// publishes the same list.
var (
	touchedAnswer  = []string{"Payment-Response", "Cache-Control", "Vary"}
	touchedRequest = []string{"Payment-Signature", "X-Payment"}
)

// exchange is one request and what the upstream does with it.
type exchange struct {
	name        string
	method, uri string
	header      []string
	body        string
	chunked     bool // send the body in chunks
	trailer     []string
	answer      http.HandlerFunc
	only        string // the protocols that can do it; "" means all
	charged     bool
	local       bool // the upstream is not asked
}

// request makes the exchange's request anew.
func (x exchange) request(w *gate.Twins) *http.Request {
	r := w.Request(x.method, x.uri, x.header...)
	if x.body != "" {
		body := io.Reader(strings.NewReader(x.body))
		r.ContentLength = int64(len(x.body))
		if x.chunked {
			r.ContentLength = -1
		}
		r.Body = io.NopCloser(body)
	}
	if len(x.trailer) > 0 {
		r.Trailer = http.Header{x.trailer[0]: {x.trailer[1]}}
	}
	return r
}

// told is what an upstream and a client have seen of an exchange.
type told struct {
	hints  []string // 1xx
	answer gate.Answer
	up     *http.Request
	sum    [32]byte // of the request's body
	length int
	extra  http.Header // trailers of the request
}

// run sends a request to a site whose upstream does what the exchange says.
func (x exchange) run(w *gate.Twins, c *gate.Client, r *http.Request) told {
	var s told
	seen := make(chan struct{})
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		defer close(seen)
		body, _ := io.ReadAll(r.Body)
		s.up, s.sum, s.length, s.extra = r.Clone(r.Context()), sha256.Sum256(body), len(body), r.Trailer.Clone()
		if x.answer != nil {
			x.answer(rw, r)
			return
		}
		_, _ = io.WriteString(rw, gate.Goods)
	})
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		h.Del("Alt-Svc") // names the port
		if code == http.StatusContinue {
			// Two servers may each say it, in a race that has nothing to do with us.
			s.hints = slices.DeleteFunc(s.hints, func(hint string) bool { return hint == "100" })
			s.hints = append(s.hints, "100")
			return nil
		}
		s.hints = append(s.hints, fmt.Sprint(code, h))
		return nil
	}}
	s.answer = c.Send(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if x.local {
		return s
	}
	select {
	case <-seen:
	case <-time.After(10 * time.Second):
		c.T.Fatal("the upstream has seen nothing")
	}
	return s
}

// String is what must be equal with and without the gate.
func (s told) String() string {
	var b strings.Builder
	res := s.answer
	fmt.Fprintf(&b, "hints %v\n%s, length %d, coding %q, close %t\n", s.hints, res.Status, res.ContentLength, res.TransferEncoding, res.Close)
	_ = without(res.Header, append([]string{"Date", "Alt-Svc"}, touchedAnswer...)).Write(&b)
	fmt.Fprintf(&b, "trailers %v\nbody of %d bytes %x\n%.200q\n", res.Trailer, len(res.Text), sha256.Sum256([]byte(res.Text)), res.Text)
	if s.up != nil {
		fmt.Fprintf(&b, "upstream: %s %s %s %s, length %d, coding %q\n", s.up.Method, s.up.Host, s.up.RequestURI, s.up.Proto, s.up.ContentLength, s.up.TransferEncoding)
		_ = without(s.up.Header, touchedRequest).Write(&b)
		fmt.Fprintf(&b, "trailers %v\nbody of %d bytes %x\n", s.extra, s.length, s.sum)
	}
	return b.String()
}

func without(header http.Header, names []string) http.Header {
	header = header.Clone()
	for _, name := range names {
		delete(header, name)
	}
	return header
}

// wantTouched is what the gate makes of the headers that it may touch.
func wantTouched(t *testing.T, open, gated http.Header, charged bool) {
	t.Helper()
	if got := len(gated["Payment-Response"]); got != map[bool]int{true: 1}[charged] {
		t.Errorf("%d receipts, charged %t", got, charged)
	}
	vary := slices.Concat(open["Vary"], []string{"PAYMENT-SIGNATURE, X-PAYMENT"})
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if !slices.Equal(sorted(gated["Vary"]), sorted(vary)) {
		t.Errorf("Vary %q, without the gate %q", gated["Vary"], open["Vary"])
	}
	control := "private"
	for _, value := range open["Cache-Control"] {
		for directive := range strings.SplitSeq(value, ",") {
			if directive = strings.TrimSpace(directive); directive != "private" && directive != "public" && !strings.HasPrefix(directive, "s-maxage") {
				control += ", " + directive
			}
		}
	}
	if got := gated["Cache-Control"]; len(got) != 1 || got[0] != control {
		t.Errorf("Cache-Control %q, want %q", got, control)
	}
}

// compare runs an exchange on both sites in every version of HTTP that can do it.
func compare(t *testing.T, w *gate.Twins, x exchange) {
	t.Helper()
	for _, protocol := range gate.Protocols {
		if x.only != "" && !slices.Contains(strings.Fields(x.only), protocol) {
			continue
		}
		t.Run(x.name+" "+protocol, func(t *testing.T) {
			w.T = t
			open, gated := w.Client(t, w.Open, protocol), w.Client(t, w.Gated, protocol)
			paid := x.request(w)
			paid.Header.Set("PAYMENT-SIGNATURE", gate.Sign(t, gated.Offer(x.request(w))).V2(t))
			settled := w.Facilitator.Settled.Load()
			a, b := x.run(w, open, x.request(w)), x.run(w, gated, paid)
			if a.String() != b.String() {
				t.Errorf("without the gate:\n%s\nwith it, paid:\n%s", a, b)
			}
			wantTouched(t, a.answer.Header, b.answer.Header, x.charged)
			if got := w.Facilitator.Settled.Load() - settled; got != map[bool]int64{true: 1}[x.charged] {
				t.Errorf("%d settlements, charged %t", got, x.charged)
			}
		})
	}
}

// TestPublishedHeaders: the published list names what these tests leave out.
func TestPublishedHeaders(t *testing.T) {
	page, err := os.ReadFile("../../docs/payments.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## What the gate touches\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, name := range slices.Concat(touchedAnswer, touchedRequest) {
		if !strings.Contains(strings.ToLower(section), "`"+strings.ToLower(name)+"`") {
			t.Errorf("docs/payments.md does not say that the gate touches %s", name)
		}
	}
}

// text is a compressible body of some length.
func text(n int) string { return strings.Repeat("All that glitters is sold. ", n/27+1)[:n] }

func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// exchanges are what a gate in front of a proxy may spoil.
func exchanges() []exchange {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, text(5000))
	_ = z.Close()
	get, post := http.MethodGet, http.MethodPost
	list := []exchange{
		{name: "plain", method: get, uri: "/a?b=c&d=%2F;e"},
		{name: "odd path", method: get, uri: "/a%2Fb;c=d/%7Ee//f/./g/../h?i=/../j"},
		{name: "HEAD", method: http.MethodHead, uri: "/a", answer: says(200, "", "Content-Length", "1234", "ETag", `"x"`)},
		{name: "OPTIONS", method: http.MethodOptions, uri: "/a", answer: says(204, "", "Allow", "GET, OPTIONS")},
		{name: "DELETE", method: http.MethodDelete, uri: "/a", answer: says(204, "")},
		{name: "PUT", method: http.MethodPut, uri: "/a", body: text(100), answer: says(201, "made", "Location", "/a/1")},
		{name: "QUERY", method: "QUERY", uri: "/a", body: `{"q":1}`, header: []string{"Content-Type", "application/json"}},
		{name: "FOO", method: "FOO", uri: "/a"},
		{name: "empty", method: get, uri: "/a", answer: says(200, "")},
		{name: "no type", method: get, uri: "/a", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		}},
		{
			name: "many headers", method: get, uri: "/a",
			header: []string{"Accept", "a/b", "Accept", "c/d;q=0.5", "X-Own", "1", "X-Own", "2", "Cookie", "a=b; c=d", "Authorization", "Bearer x", "Accept-Language", "de", "Accept-Encoding", "br;q=0.1", "Referer", "http://a.example/"},
			answer: says(200, gate.Goods, "Set-Cookie", "a=b; Path=/", "Set-Cookie", "c=d", "Link", "</a>; rel=x", "Link", "</b>", "X-Own", strings.Repeat("x", 3000), "Content-Language", "de", "Server", "other"),
		},
		{name: "cached", method: get, uri: "/a", answer: says(200, gate.Goods, "Cache-Control", "public, max-age=60, s-maxage=600", "Vary", "Accept", "Expires", "Thu, 01 Jan 2099 00:00:00 GMT", "Age", "3")},
		{name: "299", method: get, uri: "/a", answer: says(299, gate.Goods)},
		{name: "206", method: get, uri: "/a", header: []string{"Range", "bytes=0-3"}, answer: says(206, "the ", "Content-Range", "bytes 0-3/10")},
		{name: "redirect away", method: get, uri: "/a", answer: says(302, "", "Location", "https://bucket.example/a?sig=1")},
		{name: "long", method: get, uri: "/a", answer: says(200, text(1<<20), "Content-Length", fmt.Sprint(1<<20))},
		{name: "chunked", method: get, uri: "/a", answer: func(w http.ResponseWriter, _ *http.Request) {
			for range 20 {
				_, _ = io.WriteString(w, text(7000))
				_ = http.NewResponseController(w).Flush()
			}
		}},
		{name: "compressed already", method: get, uri: "/a", header: []string{"Accept-Encoding", "gzip"}, answer: says(200, zipped.String(), "Content-Encoding", "gzip", "Content-Type", "text/plain")},
		{name: "trailers", method: get, uri: "/a", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Announced, X-Other")
			_, _ = io.WriteString(w, gate.Goods)
			w.Header().Set("X-Announced", "a")
			w.Header().Set("X-Other", "b")
			w.Header().Set(http.TrailerPrefix+"X-Late", "c")
		}},
		{name: "late trailers", method: get, uri: "/a", answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, gate.Goods)
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Late", "c")
		}},
		{name: "form", method: post, uri: "/a", body: "a=b&c=%20", header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{name: "multipart", method: post, uri: "/a", body: "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"g\"\r\n\r\n" + text(70000) + "\r\n--b--\r\n", header: []string{"Content-Type", "multipart/form-data; boundary=b"}},
		{name: "one byte", method: post, uri: "/a", body: "x"},
		{name: "chunked body", method: post, uri: "/a", body: text(100000), chunked: true},
		{name: "zipped body", method: post, uri: "/a", body: zipped.String(), header: []string{"Content-Encoding", "gzip"}},
		{name: "body with trailers", method: post, uri: "/a", body: text(100), chunked: true, trailer: []string{"X-Sum", "1"}},
		{name: "hints", method: post, uri: "/a", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Add("Link", "</b.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, gate.Goods)
		}},
		{name: "Expect", method: post, uri: "/a", body: text(50000), header: []string{"Expect", "100-continue"}, only: "h1 h1s"},
		{name: "Connection close", method: get, uri: "/a", header: []string{"Connection", "close"}, only: "h1 h1s"},
		{name: "error after payment", method: post, uri: "/a", answer: says(500, "broken", "Content-Type", "text/x")},
		{name: "304 after payment", method: post, uri: "/a", answer: says(304, "", "ETag", `"x"`)},
	}
	for i := range list {
		list[i].charged = true
	}
	for _, x := range []exchange{
		{name: "304", method: get, uri: "/a", header: []string{"If-None-Match", `"x"`, "If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"}, answer: says(304, "", "ETag", `"x"`, "Cache-Control", "public, max-age=60")},
		{name: "412", method: get, uri: "/a", header: []string{"If-Match", `"y"`}, answer: says(412, "")},
		{name: "416", method: get, uri: "/a", header: []string{"Range", "bytes=99-"}, answer: says(416, "", "Content-Range", "bytes */10")},
		{name: "404", method: get, uri: "/a", answer: says(404, "none", "Cache-Control", "max-age=5")},
		{name: "500", method: get, uri: "/a", answer: says(500, "broken")},
		{name: "redirect here", method: get, uri: "/a", answer: says(301, "", "Location", "/a/")},
		{name: "upstream's own 402", method: get, uri: "/a", answer: says(402, "no credits")},
	} {
		list = append(list, x)
	}
	return list
}

// TestTransparent: a paid answer is the open site's answer, and the upstream
// sees the open site's request, but for the published headers.
func TestTransparent(t *testing.T) {
	for name, around := range map[string]string{
		"alone": "", "encode": "encode zstd gzip",
		"surrounded": "header X-Ours yes\nheader >X-Late yes\nheader -X-Own\nhandle_errors {\n respond `sorry` 200\n}\nintercept {\n @none status 999\n handle_response @none {\n respond no\n }\n}",
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.NewTwins(t, gate.TwinsConfig{Around: around})
			for _, x := range exchanges() {
				if name != "alone" {
					x.only = "h1 h2"
				}
				compare(t, w, x)
				if name == "encode" && x.method == http.MethodGet && x.answer == nil {
					for _, coding := range []string{"gzip", "zstd"} {
						x := x
						// With a length nobody flushes in between, which would show in the coding.
						x.name, x.header, x.answer = coding, []string{"Accept-Encoding", coding}, says(200, text(5000), "Content-Type", "text/plain", "ETag", `"x"`, "Content-Length", "5000")
						compare(t, w, x)
					}
				}
			}
		})
	}
}
