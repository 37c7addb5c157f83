package promises

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func TestUnpaidIsChallenged(t *testing.T) {
	w := gate.New(t, `price /paid/* $0.01 "A thing"`)
	res := w.Get("/paid/x?q=1")
	w.Expect(res, http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	c, err := x402.DecodeChallenge(res.Header.Get("Payment-Required"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Resource.URL, w.URL+"/paid/x?q=1"; got != want {
		t.Errorf("resource %q, want %q", got, want)
	}
	if len(c.Accepts) != 1 || c.Accepts[0].Amount != "10000" || c.Accepts[0].Asset != gate.USDC || c.Accepts[0].PayTo != gate.PayTo {
		t.Errorf("accepts %+v", c.Accepts)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	if !strings.Contains(res.Text, `"x402Version":1`) || !strings.Contains(res.Text, `"maxAmountRequired":"10000"`) {
		t.Errorf("no version 1 challenge in %s", res.Text)
	}
	w.Counts(0, 0, 0)

	// What nobody priced is free, and costs the facilitator nothing.
	if res := w.Get("/other"); res.StatusCode != http.StatusOK || res.Text != gate.Goods {
		t.Errorf("free path: %d %q", res.StatusCode, res.Text)
	}
	w.Counts(1, 0, 0)
}

func TestBrowserSeesPage(t *testing.T) {
	w := gate.New(t, `price /paid/* $0.01`)
	res := w.Get("/paid/x", "Accept", "text/html,*/*", "User-Agent", "Mozilla/5.0")
	if res.StatusCode != http.StatusPaymentRequired || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || res.Header.Get("Payment-Required") == "" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	if !strings.Contains(res.Text, "Payment required") {
		t.Fatal(res.Text)
	}
}

func TestPaidIsDelivered(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, version := range []string{"v1", "v2"} {
			t.Run(method+" "+version, func(t *testing.T) {
				w := gate.New(t, "price /paid/* $0.01")
				s := w.Sign(method, "/paid/x", gate.NewPayer(t))
				name, value, receiptName := "PAYMENT-SIGNATURE", s.V2(t), x402.HeaderPaymentResponse
				if version == "v1" {
					name, value, receiptName = "X-PAYMENT", s.V1(t), x402.HeaderXPaymentResponse
				}
				res := w.Do(w.Request(method, "/paid/x", name, value))
				w.Expect(res, http.StatusOK, "")
				if res.Text != gate.Goods || res.Header.Get("X-Upstream") != "yes" {
					t.Fatalf("%q %v", res.Text, res.Header)
				}
				receipt, err := x402.DecodeReceipt(res.Header.Get(receiptName))
				if err != nil || !receipt.Success || len(receipt.Transaction) != 66 || receipt.Payer != s.Authorization["from"] {
					t.Fatalf("receipt %+v %v", receipt, err)
				}
				if got := res.Header.Get("Cache-Control"); got != "private" {
					t.Errorf("Cache-Control %q", got)
				}
				w.Counts(1, 1, 1)

				// The upstream does not see the payment.
				r, _ := w.Upstream.Seen()
				for _, name := range []string{"Payment-Signature", "X-Payment"} {
					if r.Header.Get(name) != "" {
						t.Errorf("the upstream saw %s", name)
					}
				}

				// It buys once, and the second answer names the transaction.
				res = w.Again(func() gate.Answer { return w.Do(w.Request(method, "/paid/x", name, value)) })
				w.Expect(res, http.StatusPaymentRequired, string(x402.CodePaymentAlreadyUsed))
				again := gate.ReceiptOf(t, res)
				if again.Transaction != receipt.Transaction {
					t.Errorf("receipt of the second try: %+v", again)
				}
				w.Counts(1, 1, 1)
			})
		}
	}
}

func TestCheaperPaymentBuysNothingDearer(t *testing.T) {
	w := gate.New(t, "price /cheap $0.001\n price /dear $1")
	cheap := w.Sign(http.MethodGet, "/cheap", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/dear", "PAYMENT-SIGNATURE", cheap), http.StatusPaymentRequired, string(x402.CodeNoMatchingRequirements))
	w.Counts(0, 0, 0)
	w.Expect(w.Get("/cheap", "PAYMENT-SIGNATURE", cheap), http.StatusOK, "")
}

func TestRefusedAnswersAreUncharged(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		charged bool
	}{
		{"404", gate.Says(404, "no"), false},
		{"500", gate.Says(500, "no"), false},
		{"304", gate.Says(304, ""), false},
		{"402 of the upstream", gate.Says(402, "no credits"), false},
		{"204", gate.Says(204, ""), true},
		{"206", gate.Says(206, "part"), true},
		{"redirect here", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(302)
		}, false},
		{"redirect to signed URL", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://bucket.example/x?sig=1")
			w.WriteHeader(302)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			w.Upstream.On(tc.answer)
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
			if res.Err != nil {
				t.Fatal(res.Err)
			}
			if got := res.Header.Get("Payment-Response") != ""; got != tc.charged {
				t.Errorf("receipt: %v, want %v", got, tc.charged)
			}
			want := 0
			if tc.charged {
				want = 1
			}
			if got := w.Facilitator.Transfers(); got != want {
				t.Errorf("%d transfers, want %d", got, want)
			}
			if tc.charged {
				return
			}
			// What was not charged is free to buy something else.
			w.Upstream.On(gate.Says(200, gate.Goods))
			if res := w.Get("/paid/y", "PAYMENT-SIGNATURE", s); res.StatusCode != 200 {
				t.Errorf("the same payment afterwards: %d %s", res.StatusCode, res.Text)
			}
		})
	}
}

func TestHeadCostsWhatGetCosts(t *testing.T) {
	w := gate.New(t, "price GET /paid/* $0.01")
	res := w.Do(w.Request(http.MethodHead, "/paid/x"))
	if res.StatusCode != http.StatusPaymentRequired || res.Header.Get("Payment-Required") == "" || res.Text != "" {
		t.Fatalf("unpaid HEAD: %d %v", res.StatusCode, res.Header)
	}
	w.Counts(0, 0, 0)
	s := w.Sign(http.MethodHead, "/paid/x", gate.NewPayer(t)).V2(t)
	res = w.Do(w.Request(http.MethodHead, "/paid/x", "PAYMENT-SIGNATURE", s))
	w.Expect(res, http.StatusOK, "")
	w.Counts(1, 1, 1)
	// A HEAD delivers nothing: its payment buys one GET.
	res = w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
	w.Expect(res, http.StatusOK, "")
	if res.Text != gate.Goods {
		t.Fatal(res.Text)
	}
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }), http.StatusPaymentRequired, string(x402.CodePaymentAlreadyUsed))
	w.Counts(2, 1, 1)
	res = w.Do(w.Request(http.MethodPost, "/paid/x"))
	w.Expect(res, http.StatusMethodNotAllowed, "method_not_allowed")
	if got := res.Header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow %q", got)
	}
}

func TestOtherwisePricesOrRefusesTheRest(t *testing.T) {
	w := gate.New(t, "price /paid $0.01\n free /health\n otherwise refuse")
	w.Expect(w.Get("/health"), 200, "")
	w.Expect(w.Get("/else"), http.StatusForbidden, "not_for_sale")
	w.Expect(w.Get("/paid"), http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	w = gate.New(t, "free /health\n otherwise $0.02")
	if c := w.Challenge(http.MethodGet, "/else"); c.Accepts[0].Amount != "20000" {
		t.Fatalf("%+v", c.Accepts)
	}
}

func TestAmbiguousPathsAreRefused(t *testing.T) {
	w := gate.New(t, "price /cheap/* $0.001\n price /dear/* $1\n free /cheap/free/*")
	w.Expect(w.Get("/cheap/..%2fdear/x"), http.StatusBadRequest, "ambiguous_path")
	w.Expect(w.Get("/cheap//free/..%2fx"), http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	w.Counts(0, 0, 0)
}

// Two blocks: the second one prices what the first let through, and refuses
// what the first has charged.
func TestSecondBlockRefusesWhatTheFirstHasCharged(t *testing.T) {
	w := gate.New(t, "price /a/* $0.01", `
		route {
			paywall {
				accept base-sepolia usdc `+gate.PayTo+`
				facilitator fake
				price /a/* $0.01
				price /b/* $0.02
			}
		}`)
	// route comes after paywall, so the block in it is the second one.
	if c := w.Challenge(http.MethodGet, "/b/x"); c.Accepts[0].Amount != "20000" {
		t.Fatalf("%+v", c.Accepts)
	}
	w.Expect(w.Pay(http.MethodGet, "/b/x"), 200, "")
	res := w.Pay(http.MethodGet, "/a/x")
	w.Expect(res, 500, "priced_twice")
	w.Counts(1, 2, 1)
}
