package paywall_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// bystander is a handler that does nothing. What it costs is what Caddy takes
// for one more handler in a route, whichever it is.
type bystander struct{}

func (bystander) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bystander", New: func() caddy.Module { return new(bystander) }}
}

func (bystander) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(bystander{})
	httpcaddyfile.RegisterHandlerDirective("bystander", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return bystander{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bystander", httpcaddyfile.Before, "reverse_proxy")
}

var _ caddyfile.Unmarshaler = (*bystander)(nil)

func (*bystander) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// unpriced returns three servers of one Caddy that differ in one handler: none, a
// bystander, and a paywall with a hundred prices.
func unpriced(t testing.TB) (servers [3]*caddyhttp.Server) {
	t.Helper()
	fac := gate.NewFacilitator(t)
	var prices strings.Builder
	for i := range 100 {
		prices.WriteString("price /section" + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + "/* $0.01\n")
	}
	prices.WriteString("price *.pdf $0.02\nprice /api/*/items $0.03\n")
	addresses := [3]string{loopback.FreeAddress(t), loopback.FreeAddress(t), loopback.FreeAddress(t)}
	byAddress := serversOf(t, fac, `http://`+addresses[0]+` {
		respond ok
	}
	http://`+addresses[1]+` {
		bystander
		respond ok
	}
	http://`+addresses[2]+` {
		paywall {
			accept base-sepolia usdc `+gate.PayTo+`
			facilitator fake
			`+prices.String()+`
		}
		respond ok
	}`)
	for i, address := range addresses {
		servers[i] = byAddress[address]
	}
	return servers
}

var unpricedRequests = []struct{ name, path string }{
	{"short", "/"},
	{"article", "/blog/2026/a-page-of-the-blog.html"},
	{"upper case", "/Blog/A-Page"},
	{"long", "/" + strings.Repeat("a-directory/", 20) + "page"},
	{"query", "/search?q=what+does+it+cost&page=2"},
}

func unpricedRequest(path string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+path, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
	r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	r.Header.Set("Accept-Language", "en-US,en;q=0.5")
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	r.Header.Set("Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark")
	return r
}

// raceEnabled is set in race_test.go.
var raceEnabled bool

// A request that nobody priced costs no allocation beyond what Caddy takes for
// any handler that does nothing.
func TestUnpricedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	servers := unpriced(t)
	for _, tc := range unpricedRequests {
		var allocs [3]float64
		for i, s := range servers {
			r, w := unpricedRequest(tc.path), &sink{header: http.Header{}}
			allocs[i] = testing.AllocsPerRun(500, func() {
				clear(w.header)
				s.ServeHTTP(w, r)
			})
			if w.status != http.StatusOK {
				t.Fatalf("%s: status %d", tc.name, w.status)
			}
		}

		if allocs[2] > allocs[1] {
			t.Errorf("%s: %v allocations without, with a bystander, with us", tc.name, allocs)
		}
	}
}

// BenchmarkUnpriced measures what the gate adds to a request that nobody priced:
// the same request through the same Caddy without it, with a handler that does
// nothing, and with a gate of a hundred prices, in turn. ns/op is all three;
// what matters are the two differences.
func BenchmarkUnpriced(b *testing.B) {
	servers := unpriced(b)
	for _, tc := range unpricedRequests {
		b.Run(tc.name, func(b *testing.B) {
			const batch = 200
			r, w := unpricedRequest(tc.path), &sink{header: http.Header{}}
			var rounds [3][]time.Duration
			for b.Loop() {
				for i, s := range servers {
					start := time.Now()
					for range batch {
						clear(w.header)
						s.ServeHTTP(w, r)
					}
					rounds[i] = append(rounds[i], time.Since(start)/batch)
				}
			}
			// The median of the differences within a round: what else the machine
			// does hits all three.
			median := func(a, b int) float64 {
				var d []float64
				for i := range rounds[0] {
					d = append(d, float64(rounds[b][i]-rounds[a][i]))
				}
				slices.Sort(d)
				return d[len(d)/2]
			}
			b.ReportMetric(median(0, 1), "ns-of-any-handler")
			b.ReportMetric(median(0, 2), "ns-of-the-gate")
		})
	}
}
