package paywall_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// BenchmarkGate measures what the gate costs, beside Caddy's own `respond` with
// an answer of the same size, in one run and through the whole of Caddy's
// server but for the socket. Read the ratios to `floor`, not the absolutes.
func BenchmarkGate(b *testing.B) {
	fac := gate.NewFacilitator(b)
	body := strings.Repeat("x", 420) // the size of a challenge's body
	address := loopback.FreeAddress(b)
	server := serversOf(b, fac, `http://`+address+` {
		handle /floor {
			header PAYMENT-REQUIRED `+strings.Repeat("y", 560)+`
			respond `+body+` 402
		}
		handle /without/* {
			respond ok
		}
		handle {
			paywall {
				accept base-sepolia usdc `+gate.PayTo+`
				facilitator fake
				price /paid/* $0.01 "A thing"
			}
			respond ok
		}
	}`)[address]

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
			r := httptest.NewRequest(http.MethodGet, "http://"+address+tc.path, nil)
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
		r := httptest.NewRequest(http.MethodGet, "http://"+address+"/paid/x", nil)
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		c, err := x402.DecodeChallenge(rec.Header().Get(x402.HeaderPaymentRequired))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Payment-Signature", gate.NewPayer(b).Sign(b, c.Accepts[0], time.Now()).V2(b))
		w := &sink{header: http.Header{}}
		for b.Loop() {
			clear(w.header)
			server.ServeHTTP(w, r)
		}
		if w.status != 402 && w.status != 429 { // after so many looks into the ledger
			b.Fatalf("status %d", w.status)
		}
	})
}

// BenchmarkJunk measures what bad payments cost, from which on nobody is asked
// about them any more.
func BenchmarkJunk(b *testing.B) {
	fac := gate.NewFacilitator(b)
	fac.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	address := loopback.FreeAddress(b)
	server := serversOf(b, fac, `http://`+address+` {
		paywall {
			accept base-sepolia usdc `+gate.PayTo+`
			facilitator fake
			price /paid/* $0.01 "A thing"
		}
		respond ok
	}`)[address]
	ask := func(payment string) (*http.Request, *httptest.ResponseRecorder) {
		r, rec := httptest.NewRequest(http.MethodGet, "http://"+address+"/paid/x", nil), httptest.NewRecorder()
		if payment != "" {
			r.Header.Set(x402.HeaderPaymentSignature, payment)
		}
		server.ServeHTTP(rec, r)
		return r, rec
	}
	_, rec := ask("")
	c, err := x402.DecodeChallenge(rec.Header().Get(x402.HeaderPaymentRequired))
	if err != nil {
		b.Fatal(err)
	}
	empty := gate.NewPayer(b).Sign(b, c.Accepts[0], time.Now())
	other := *empty
	other.Signature = gate.NewPayer(b).Sign(b, c.Accepts[0], time.Now()).Signature
	cheap := *empty
	cheap.Authorization = maps.Clone(empty.Authorization)
	cheap.Authorization["value"] = "1"
	for _, tc := range []struct {
		name, payment string
		status        int
	}{
		{"unpaid", "", 402},
		{"garbage", strings.Repeat("junk", 250), 402},
		{"another amount", cheap.V2(b), 402},
		{"another signature", other.V2(b), 503},
		{"empty wallet", empty.V2(b), 429},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			r, rec := ask(tc.payment)
			for i := 0; rec.Code != tc.status; i++ { // until its tries are used up
				if r, rec = ask(tc.payment); i > 1000 {
					b.Fatalf("status %d", rec.Code)
				}
			}
			w := &sink{header: http.Header{}}
			asked := fac.Verified.Load()
			for b.Loop() {
				clear(w.header)
				server.ServeHTTP(w, r)
			}
			// Some tries come back meanwhile, and are used.
			b.ReportMetric(float64(fac.Verified.Load()-asked)/float64(b.N), "asked/op")
		})
	}
}

// serversOf runs sites in a Caddy that logs nothing, with a facilitator "fake", and
// returns their servers by address.
func serversOf(t testing.TB, fac *gate.Facilitator, sites string) map[string]*caddyhttp.Server {
	t.Helper()
	if err := gate.Load(`{
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
	` + sites); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]*caddyhttp.Server{}
	for _, s := range app.(*caddyhttp.App).Servers {
		servers["127.0.0.1"+s.Listen[0]] = s
	}
	return servers
}

// sink is a response writer that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }
