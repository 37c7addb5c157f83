package protocols

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// spellings are ways to write a header's name that CGI programs, PHP and their
// like take for the same.
func spellings(name string) []string {
	lower, upper := strings.ToLower(name), strings.ToUpper(name)
	return []string{
		name, lower, upper,
		strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(lower, "-", "_"), strings.ReplaceAll(upper, "-", "_"),
		strings.Replace(name, "-", "_", 1),
		strings.ReplaceAll(name, "-", "."), strings.ReplaceAll(lower, "-", "."), strings.Replace(name, "-", ".", 1),
		strings.ReplaceAll(name, "-", "+"), strings.ReplaceAll(name, "-", "~"), strings.ReplaceAll(name, "-", "!"), strings.ReplaceAll(name, "-", "|"),
	}
}

// cgi is a header's name as a CGI program knows it.
func cgi(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
			return c
		}
		return '_'
	}, name)
}

// lenient makes Caddy pass on the names that it drops by itself, so that the
// gate alone has to know them.
const lenient = "expected_underscore_headers Paywall_* X_PAYMENT\nexpected_dot_headers Paywall.* X.Payment"

// TestForgedHeaders: nobody can tell the upstream that he has paid, in whatever
// spelling, on paths that are priced and paths that are free.
func TestForgedHeaders(t *testing.T) {
	ours := []string{"Paywall-Payment", "Paywall-Payer", "Paywall-Amount", "Paywall-Asset", "Paywall-Network", "Paywall-Transaction", "Paywall-Whatever-Comes"}
	for _, options := range []string{"", "upstream_headers"} {
		for _, servers := range []string{"", lenient} {
			w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price GET /paid $0.01\nprice POST /paid $0.01\n" + options, Servers: servers})
			for _, protocol := range []string{"h1", "h2", "h3"} {
				for _, path := range []string{"/paid", "/free"} {
					t.Run(options+" "+protocol+path, func(t *testing.T) {
						c := w.Gated.Client(t, protocol)
						for _, method := range []string{http.MethodGet, http.MethodPost} {
							r := w.Request(method, path)
							if path == "/paid" {
								r = c.Paying(r)
							}
							for _, name := range ours {
								for _, spelled := range spellings(name) {
									r.Header[spelled] = []string{"forged"}
								}
							}
							if res := c.Send(r); res.StatusCode != http.StatusOK {
								t.Fatal(res)
							}
							told := 0
							for name, values := range w.Upstream.Last().Header {
								if !strings.HasPrefix(cgi(name), "PAYWALL_") {
									continue
								}
								told++
								if len(values) != 1 || values[0] == "forged" {
									t.Errorf("the upstream sees %s: %q", name, values)
								}
							}
							if want := path == "/paid" && options != ""; want != (told > 0) {
								t.Errorf("%d headers of ours reach the upstream", told)
							}
							if want := path == "/paid" && options != ""; want && w.Upstream.Last().Header.Get("Idempotency-Key") == "" {
								t.Error("no Idempotency-Key")
							}
						}
					})
				}
			}
		}
	}
}

// TestPaymentsStayHere: the upstream of a priced path never sees a payment, in
// whatever spelling. What is sent to a free path is none of ours: the upstream
// may sell it itself.
func TestPaymentsStayHere(t *testing.T) {
	for _, servers := range []string{"", lenient} {
		w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01", Servers: servers})
		for _, protocol := range []string{"h1", "h2", "h3"} {
			t.Run(protocol, func(t *testing.T) {
				c := w.Gated.Client(t, protocol)
				versions := []string{x402.HeaderPaymentSignature}
				if servers == "" { // else Caddy drops the true name in favour of the others
					versions = append(versions, x402.HeaderXPayment)
				}
				for _, version := range versions {
					p := gate.Sign(t, c.Offer(w.Request(http.MethodGet, "/paid")))
					payment := map[string]string{x402.HeaderPaymentSignature: p.V2(t), x402.HeaderXPayment: p.V1(t)}[version]
					r := w.Request(http.MethodGet, "/paid")
					for _, name := range []string{x402.HeaderPaymentSignature, x402.HeaderXPayment} {
						for _, spelled := range spellings(name)[3:] {
							r.Header[spelled] = []string{"money"}
						}
					}
					r.Header.Set(version, payment)
					if res := c.Send(r); res.StatusCode != http.StatusOK {
						t.Fatal(res)
					}
					for name, values := range w.Upstream.Last().Header {
						if n := cgi(name); n == "PAYMENT_SIGNATURE" || n == "X_PAYMENT" || values[0] == "money" || values[0] == payment {
							t.Errorf("the upstream sees %s", name)
						}
					}
				}
				c.Send(w.Request(http.MethodGet, "/free", "PAYMENT-SIGNATURE", "for you"))
				if got := w.Upstream.Last().Header.Get("PAYMENT-SIGNATURE"); got != "for you" {
					t.Errorf("the upstream of a free path sees %q", got)
				}
			})
		}
	}
}

// TestForgedReceipts: what an upstream says in our name does not reach the
// payer, as header or as trailer.
func TestForgedReceipts(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /held $0.01\nprice /first $0.01 {\n settle first\n}"})
	names := []string{"Payment-Response", "X-Payment-Response", "Payment-Required", "Settlement-Overrides"}
	for _, long := range []bool{false, true} { // HTTP/3 holds the header of a short answer back
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			for _, name := range names {
				rw.Header().Set(name, "forged")
			}
			rw.Header().Set("Trailer", "payment-response, X-Announced, X-Payment-Response")
			if r.URL.RawQuery == "404" {
				rw.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(rw, gate.Goods)
			if long {
				_, _ = io.WriteString(rw, text(100_000))
			}
			rw.Header().Set("X-Announced", "yes")
			for _, name := range names {
				rw.Header().Set(name, "forged trailer")
				rw.Header().Set(http.TrailerPrefix+name, "forged late")
			}
		})
		for _, protocol := range gate.Protocols {
			for _, uri := range []string{"/held", "/first", "/held?404", "/first?404"} {
				t.Run(protocol+uri, func(t *testing.T) {
					c := w.Gated.Client(t, protocol)
					res := c.Send(c.Paying(w.Request(http.MethodGet, uri)))
					charged := uri != "/held?404"
					receipts := res.Header["Payment-Response"]
					if charged != (len(receipts) == 1) {
						t.Fatal(res)
					}
					if charged {
						if receipt, err := x402.DecodeReceipt(receipts[0]); err != nil || !receipt.Success {
							t.Error(err)
						}
					}
					for _, name := range names {
						if len(res.Trailer[name]) > 0 || name != "Payment-Response" && len(res.Header[name]) > 0 {
							t.Errorf("%s: %q, trailer %q", name, res.Header[name], res.Trailer[name])
						}
					}
					if res.Trailer.Get("X-Announced") != "yes" {
						t.Errorf("trailers %v", res.Trailer)
					}
				})
			}
		}
	}
}

// TestErrorRoutesSeeNoPayment: the error routes that answer for an upstream's 404
// may ask a proxy.
func TestErrorRoutesSeeNoPayment(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		w := gate.NewTwins(t, gate.TwinsConfig{
			Prices: "price /* $0.01\nsettle " + settle + "\nupstream_headers",
			Behind: "root * " + t.TempDir() + "\nfile_server\nhandle_errors {\n reverse_proxy {up}\n}",
		})
		for _, protocol := range []string{"h1", "h2", "h3"} {
			c := w.Gated.Client(t, protocol)
			hits := w.Upstream.Hits.Load()
			r := c.Paying(w.Request(http.MethodGet, "/x"))
			r.Header.Set("X_PAYMENT", "money")
			if res := c.Send(r); res.StatusCode != http.StatusOK || w.Upstream.Hits.Load() != hits+1 {
				t.Fatal(res)
			}
			for name := range w.Upstream.Last().Header {
				if n := cgi(name); n == "PAYMENT_SIGNATURE" || n == "X_PAYMENT" {
					t.Errorf("%s, %s: the error routes see %s", settle, protocol, name)
				}
			}
		}
	}
}

// TestOursAreNotHopByHop: what a client names in Connection is for the next hop
// only, and proxies remove it; a client must not have what we tell the upstream
// removed that way.
func TestOursAreNotHopByHop(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01\nupstream_headers"})
	for _, protocol := range []string{"h1", "h1s"} {
		c := w.Gated.Client(t, protocol)
		r := c.Paying(w.Request(http.MethodGet, "/paid"))
		r.Header["Connection"] = []string{"keep-alive, Paywall-Payer,paywall-amount , X-Own", "IDEMPOTENCY-KEY, Paywall-Payment"}
		r.Header.Set("X-Own", "1")
		if res := c.Send(r); res.StatusCode != http.StatusOK {
			t.Fatal(res)
		}
		seen := w.Upstream.Last().Header
		for _, name := range []string{"Paywall-Payment", "Paywall-Payer", "Paywall-Amount", "Paywall-Asset", "Paywall-Network", "Idempotency-Key"} {
			if seen.Get(name) == "" {
				t.Errorf("%s: the upstream does not see %s", protocol, name)
			}
		}
		if seen.Get("X-Own") != "" {
			t.Errorf("%s: what is the client's own stays hop by hop", protocol)
		}
	}
}

// TestForgedTrailers: what must not reach the upstream as a header does not as a
// trailer, which some servers take for headers.
func TestForgedTrailers(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01"})
	for _, protocol := range gate.Protocols {
		for _, path := range []string{"/paid", "/free"} {
			t.Run(protocol+path, func(t *testing.T) {
				var trailer http.Header
				done := make(chan struct{})
				w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
					defer close(done)
					_, _ = io.Copy(io.Discard, r.Body)
					trailer = r.Trailer.Clone()
					_, _ = io.WriteString(rw, gate.Goods)
				})
				c := w.Gated.Client(t, protocol)
				r := w.Request(http.MethodPost, path)
				if path == "/paid" {
					r = c.Paying(r)
				}
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), -1
				r.Trailer = http.Header{"X-Own": {"1"}, "Paywall-Payer": {"forged"}, "Paywall_amount": {"1"}, "Payment-Signature": {"money"}}
				if res := c.Send(r); res.StatusCode != http.StatusOK {
					t.Fatal(res)
				}
				<-done
				if path == "/free" {
					delete(trailer, "Payment-Signature") // the upstream may sell by itself
				}
				if len(trailer) != 1 || protocol != "h3" && trailer.Get("X-Own") != "1" { // Caddy (2.11.9) loses those of HTTP/3
					t.Errorf("the upstream sees %v", trailer)
				}
			})
		}
	}
}

// Trailers that were not announced come too, once others are.
func TestForgedTrailersUnannounced(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01"})
	trailer := make(chan http.Header, 1)
	w.Upstream.On(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailer <- r.Trailer.Clone()
	})
	conn, err := net.Dial("tcp", w.Gated.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /free HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Own\r\n\r\n4\r\nbody\r\n0\r\nX-Own: 1\r\nPaywall-Payer: forged\r\n\r\n", gate.Host)
	if got := <-trailer; len(got) != 1 || got.Get("X-Own") != "1" {
		t.Errorf("the upstream sees %v", got)
	}
}
