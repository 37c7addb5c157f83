package paywall_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

func TestUnpaidIsChallenged(t *testing.T) {
	w := newWorld(t, `price /paid/* $0.01 "A thing"`)
	res := w.get("/paid/x?q=1")
	w.expect(res, http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	c, err := x402.DecodeChallenge(res.Header.Get("Payment-Required"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Resource.URL, w.gate+"/paid/x?q=1"; got != want {
		t.Errorf("resource %q, want %q", got, want)
	}
	if len(c.Accepts) != 1 || c.Accepts[0].Amount != "10000" || c.Accepts[0].Asset != usdc || c.Accepts[0].PayTo != payTo {
		t.Errorf("accepts %+v", c.Accepts)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	if !strings.Contains(res.body, `"x402Version":1`) || !strings.Contains(res.body, `"maxAmountRequired":"10000"`) {
		t.Errorf("no version 1 challenge in %s", res.body)
	}
	w.counts(0, 0, 0)

	// What nobody priced is free, and costs the facilitator nothing.
	if res := w.get("/other"); res.StatusCode != http.StatusOK || res.body != sample {
		t.Errorf("free path: %d %q", res.StatusCode, res.body)
	}
	w.counts(1, 0, 0)
}

func TestBrowserSeesPage(t *testing.T) {
	w := newWorld(t, `price /paid/* $0.01`)
	res := w.get("/paid/x", "Accept", "text/html,*/*", "User-Agent", "Mozilla/5.0")
	if res.StatusCode != http.StatusPaymentRequired || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || res.Header.Get("Payment-Required") == "" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	if !strings.Contains(res.body, "Payment required") {
		t.Fatal(res.body)
	}
}

func TestPaidIsDelivered(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, version := range []string{"v1", "v2"} {
			t.Run(method+" "+version, func(t *testing.T) {
				w := newWorld(t, "price /paid/* $0.01")
				s := w.sign(method, "/paid/x", newPayer(t))
				name, value, receiptName := "PAYMENT-SIGNATURE", s.v2(t), x402.HeaderPaymentResponse
				if version == "v1" {
					name, value, receiptName = "X-PAYMENT", s.v1(t), x402.HeaderXPaymentResponse
				}
				res := w.do(w.request(method, "/paid/x", name, value))
				w.expect(res, http.StatusOK, "")
				if res.body != sample || res.Header.Get("X-Upstream") != "yes" {
					t.Fatalf("%q %v", res.body, res.Header)
				}
				receipt, err := x402.DecodeReceipt(res.Header.Get(receiptName))
				if err != nil || !receipt.Success || len(receipt.Transaction) != 66 || receipt.Payer != s.authorization["from"] {
					t.Fatalf("receipt %+v %v", receipt, err)
				}
				if got := res.Header.Get("Cache-Control"); got != "private" {
					t.Errorf("Cache-Control %q", got)
				}
				w.counts(1, 1, 1)

				// The upstream does not see the payment.
				r, _ := w.up.seen()
				for _, name := range []string{"Payment-Signature", "X-Payment"} {
					if r.Header.Get(name) != "" {
						t.Errorf("the upstream saw %s", name)
					}
				}

				// It buys once, and the second answer names the transaction.
				res = w.again(func() answerOf { return w.do(w.request(method, "/paid/x", name, value)) })
				w.expect(res, http.StatusPaymentRequired, string(x402.CodePaymentAlreadyUsed))
				again := receiptOf(t, res)
				if again.Transaction != receipt.Transaction {
					t.Errorf("receipt of the second try: %+v", again)
				}
				w.counts(1, 1, 1)
			})
		}
	}
}

func TestOnePaymentManyCopies(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(50 * time.Millisecond)
		_, _ = rw.Write([]byte(sample))
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t))
	headers := [][2]string{{"PAYMENT-SIGNATURE", s.v2(t)}, {"X-PAYMENT", s.v1(t)}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for i := range 100 {
		wg.Go(func() {
			h := headers[i%2]
			res := w.do(w.request(http.MethodGet, "/paid/x", h[0], h[1]))
			if res.err != nil {
				t.Error(res.err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[200]+statuses[409]+statuses[402] != 100 {
		t.Fatalf("statuses %v", statuses)
	}
	w.counts(1, 1, 1)
}

func TestCheaperPaymentBuysNothingDearer(t *testing.T) {
	w := newWorld(t, "price /cheap $0.001\n price /dear $1")
	cheap := w.sign(http.MethodGet, "/cheap", newPayer(t)).v2(t)
	w.expect(w.get("/dear", "PAYMENT-SIGNATURE", cheap), http.StatusPaymentRequired, string(x402.CodeNoMatchingRequirements))
	w.counts(0, 0, 0)
	w.expect(w.get("/cheap", "PAYMENT-SIGNATURE", cheap), http.StatusOK, "")
}

func TestRefusedAnswersAreUncharged(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		charged bool
	}{
		{"404", says(404, "no"), false},
		{"500", says(500, "no"), false},
		{"304", says(304, ""), false},
		{"402 of the upstream", says(402, "no credits"), false},
		{"204", says(204, ""), true},
		{"206", says(206, "part"), true},
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
			w := newWorld(t, "price /paid/* $0.01")
			w.up.on(tc.answer)
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
			if res.err != nil {
				t.Fatal(res.err)
			}
			if got := res.Header.Get("Payment-Response") != ""; got != tc.charged {
				t.Errorf("receipt: %v, want %v", got, tc.charged)
			}
			want := 0
			if tc.charged {
				want = 1
			}
			if got := w.fac.transfers(); got != want {
				t.Errorf("%d transfers, want %d", got, want)
			}
			if tc.charged {
				return
			}
			// What was not charged is free to buy something else.
			w.up.on(says(200, sample))
			if res := w.get("/paid/y", "PAYMENT-SIGNATURE", s); res.StatusCode != 200 {
				t.Errorf("the same payment afterwards: %d %s", res.StatusCode, res.body)
			}
		})
	}
}

func TestHeadCostsWhatGetCosts(t *testing.T) {
	w := newWorld(t, "price GET /paid/* $0.01")
	res := w.do(w.request(http.MethodHead, "/paid/x"))
	if res.StatusCode != http.StatusPaymentRequired || res.Header.Get("Payment-Required") == "" || res.body != "" {
		t.Fatalf("unpaid HEAD: %d %v", res.StatusCode, res.Header)
	}
	w.counts(0, 0, 0)
	s := w.sign(http.MethodHead, "/paid/x", newPayer(t)).v2(t)
	res = w.do(w.request(http.MethodHead, "/paid/x", "PAYMENT-SIGNATURE", s))
	w.expect(res, http.StatusOK, "")
	w.counts(1, 1, 1)
	// A HEAD delivers nothing: its payment buys one GET.
	res = w.get("/paid/x", "PAYMENT-SIGNATURE", s)
	w.expect(res, http.StatusOK, "")
	if res.body != sample {
		t.Fatal(res.body)
	}
	w.expect(w.again(func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", s) }), http.StatusPaymentRequired, string(x402.CodePaymentAlreadyUsed))
	w.counts(2, 1, 1)
	res = w.do(w.request(http.MethodPost, "/paid/x"))
	w.expect(res, http.StatusMethodNotAllowed, "method_not_allowed")
	if got := res.Header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow %q", got)
	}
}

func TestOtherwise(t *testing.T) {
	w := newWorld(t, "price /paid $0.01\n free /health\n otherwise refuse")
	w.expect(w.get("/health"), 200, "")
	w.expect(w.get("/else"), http.StatusForbidden, "not_for_sale")
	w.expect(w.get("/paid"), http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	w = newWorld(t, "free /health\n otherwise $0.02")
	if c := w.challenge(http.MethodGet, "/else"); c.Accepts[0].Amount != "20000" {
		t.Fatalf("%+v", c.Accepts)
	}
}

func TestAmbiguousPath(t *testing.T) {
	w := newWorld(t, "price /cheap/* $0.001\n price /dear/* $1\n free /cheap/free/*")
	w.expect(w.get("/cheap/..%2fdear/x"), http.StatusBadRequest, "ambiguous_path")
	w.expect(w.get("/cheap//free/..%2fx"), http.StatusPaymentRequired, string(x402.CodePaymentRequired))
	w.counts(0, 0, 0)
}
