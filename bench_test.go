package paywall_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// BenchmarkGate measures what the gate costs, beside Caddy's own `respond` with
// an answer of the same size, in one run and through the whole of Caddy's
// server but for the socket. Read the ratios to `floor`, not the absolutes.
func BenchmarkGate(b *testing.B) {
	fac := newFakeFacilitator(b)
	body := strings.Repeat("x", 420) // the size of a challenge's body
	caddyfile := `{
		admin off
		persist_config off
		auto_https off
		log {
			output discard
		}
		paywall {
			ledger memory i_accept_loss
			facilitator fake ` + fac.URL + `
		}
	}
	http://127.0.0.1:` + strings.Split(freeAddress(b), ":")[1] + ` {
		handle /floor {
			header PAYMENT-REQUIRED ` + strings.Repeat("y", 560) + `
			respond ` + body + ` 402
		}
		handle /without/* {
			respond ok
		}
		handle {
			paywall {
				accept base-sepolia usdc ` + payTo + `
				facilitator fake
				price /paid/* $0.01 "A thing"
			}
			respond ok
		}
	}`
	if err := load(caddyfile); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = caddy.Stop() })
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		b.Fatal(err)
	}
	var server *caddyhttp.Server
	for _, s := range app.(*caddyhttp.App).Servers {
		server = s
	}
	host := strings.TrimPrefix(server.Listen[0], "")

	for _, tc := range []struct {
		name, path string
		status     int
	}{
		{"floor", "/floor", 402},
		{"unpaid", "/paid/x", 402},
		{"unpriced without us", "/without/x", 200},
		{"unpriced", "/other/x", 200},
		{"odd path", "/paid/a%2Fb", 402},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+host+tc.path, nil)
			w := &sink{header: http.Header{}}
			for b.Loop() {
				clear(w.header)
				server.ServeHTTP(w, r)
			}
			if w.status != tc.status {
				b.Fatalf("status %d", w.status)
			}
		})
	}

	b.Run("replayed payment", func(b *testing.B) {
		b.ReportAllocs()
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+host+"/paid/x", nil)
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		c, err := x402.DecodeChallenge(rec.Header().Get(x402.HeaderPaymentRequired))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Payment-Signature", newPayer(b).sign(b, c.Accepts[0], time.Now()).v2(b))
		w := &sink{header: http.Header{}}
		for b.Loop() {
			clear(w.header)
			server.ServeHTTP(w, r)
		}
		if w.status != 402 {
			b.Fatalf("status %d", w.status)
		}
	})
}

// sink is a response writer that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }
