package paywall_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// drop ends a connection without an answer.
func drop(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Promise 1 and 5: whatever the facilitator says on /verify that is not a clear
// yes, nothing is served, and the upstream is not asked where that can be
// avoided.
func TestVerifyAnswers(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		code   string
	}{
		"no":              {says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`), 402, "insufficient_funds"},
		"no, 400":         {says(400, `{"isValid":false,"invalidReason":"insufficient_funds"}`), 402, "insufficient_funds"},
		"no, with a text": {says(200, `{"isValid":false,"invalidReason":"node https://secret:key@rpc failed"}`), 402, "payment_invalid"},
		"412 allowance":   {says(412, `{"isValid":false,"invalidReason":"permit2_allowance_required"}`), 402, "permit2_allowance_required"},
		"empty object":    {says(200, `{}`), 502, ""},
		"text true":       {says(200, `{"isValid":"true"}`), 502, ""},
		"number":          {says(200, `1`), 502, ""},
		"null":            {says(200, `null`), 502, ""},
		"empty":           {says(200, ``), 502, ""},
		"HTML":            {says(200, `<html>ok</html>`), 502, ""},
		"trailing junk":   {says(200, `{"isValid":true}x`), 502, ""},
		"duplicate":       {says(200, `{"isValid":true,"isValid":true}`), 502, ""},
		"500":             {says(500, `{"error":"boom"}`), 0, ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/settle", http.StatusTemporaryRedirect)
		}, 0, ""},
		"dropped":     {drop, 0, ""},
		"other payer": {says(200, `{"isValid":true,"payer":"0x0000000000000000000000000000000000000001"}`), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			hits := w.up.hits.Load()
			w.t = t
			w.fac.onVerify(tc.answer)
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
			if tc.status != 0 {
				w.expect(res, tc.status, tc.code)
			} else if res.StatusCode != 502 && res.StatusCode != 503 {
				t.Errorf("status %d", res.StatusCode)
			}
			if res.StatusCode >= 500 && res.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if (res.Header.Get("Payment-Required") != "") != (res.StatusCode == 402) {
				t.Error("a challenge and a 402 belong together")
			}
			if strings.Contains(res.body, "secret") || strings.Contains(res.body, "boom") {
				t.Errorf("the facilitator's text leaked: %s", res.body)
			}
			if w.fac.settled.Load() != 0 || w.up.hits.Load() != hits {
				t.Error("settled or served without a yes")
			}
			// The claim is free again: the same payment works once all is well.
			w.fac.onVerify(nil)
			settled := w.fac.settled.Load()
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
			w.fac.settled.Store(settled)
		})
	}
}

// Promises 1 to 4: what a settlement's answer means to the payer, held
// (GET) and first (POST).
func TestSettleAnswers(t *testing.T) {
	const tx = `"transaction":"0xabababababababababababababababababababababababababababababababab"`
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		code   string
		// later: what the same payment gets once the facilitator is well.
		later int
	}{
		"definite no":         {says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`), 402, "insufficient_funds", 200},
		"definite no, 400":    {says(400, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`), 402, "insufficient_funds", 200},
		"nonce used":          {says(200, `{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":"","network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"pending":             {says(500, `{"success":false,"errorReason":"settlement_pending",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"no, but transaction": {says(200, `{"success":false,"errorReason":"insufficient_funds",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"yes, no transaction": {says(200, `{"success":true,"transaction":"","network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"yes, other network":  {says(200, `{"success":true,`+tx+`,"network":"eip155:1"}`), 503, "settlement_pending", 200},
		"text yes":            {says(200, `{"success":"true",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"empty object":        {says(200, `{}`), 503, "settlement_pending", 200},
		"HTML":                {says(200, `<html>`), 503, "settlement_pending", 200},
		"500":                 {says(500, `{"error":"internal"}`), 503, "settlement_pending", 200},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/verify", http.StatusTemporaryRedirect)
		}, 503, "settlement_pending", 200},
		"dropped": {drop, 503, "settlement_pending", 200},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+" "+name, func(t *testing.T) {
				w := newWorld(t, "price /paid/* $0.01")
				w.fac.onSettle(tc.answer)
				s := w.sign(method, "/paid/x", newPayer(t)).v2(t)
				res := w.do(w.request(method, "/paid/x", "PAYMENT-SIGNATURE", s))
				w.expect(res, tc.status, tc.code)
				if res.Header.Get("X-Upstream") != "" || strings.Contains(res.body, sample) {
					t.Errorf("something of the upstream leaked: %v %q", res.Header, res.body)
				}
				if receipt := receiptOf(t, res); receipt.Success || receipt.ErrorReason != tc.code {
					t.Errorf("receipt %+v", receipt)
				}
				if res.StatusCode == 503 && res.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				if (res.Header.Get("Payment-Required") != "") != (res.StatusCode == 402) {
					t.Error("a challenge and a 402 belong together")
				}
				if method == http.MethodPost && w.up.hits.Load() != 0 {
					t.Error("settle first, and the upstream ran")
				}
				w.fac.onSettle(nil)
				res = w.do(w.request(method, "/paid/x", "PAYMENT-SIGNATURE", s))
				w.expect(res, tc.later, "")
				if w.fac.transfers() != 1 {
					t.Errorf("%d transfers", w.fac.transfers())
				}
				w.expect(w.again(func() answerOf { return w.do(w.request(method, "/paid/x", "PAYMENT-SIGNATURE", s)) }), 402, "payment_already_used")
			})
		}
	}
}

// A settlement that moved the money and lost its answer is found again by the
// identical repeat, within the same request.
func TestLostAnswerIsRepeated(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	var tries atomic.Int64
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if tries.Add(1) == 1 {
			w.fac.move(discard{}, body)
			panic(http.ErrAbortHandler)
		}
		w.fac.move(rw, body)
	})
	res := w.pay(http.MethodGet, "/paid/x")
	w.expect(res, 200, "")
	w.counts(1, 1, 2)
	if w.fac.transfers() != 1 {
		t.Fatal(w.fac.transfers())
	}
	asked := w.fac.asked()
	if n := len(asked); string(asked[n-1]) != string(asked[n-2]) {
		t.Error("the repeat is not identical")
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// After doubt a no proves nothing: the first call may be what emptied the
// account.
func TestNoAfterDoubtIsNoNo(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	var tries atomic.Int64
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`)(rw, r)
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	for range 3 {
		w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")
	}
	// Not for another URL either, and not with a requirement that no longer fits.
	res := w.get("/paid/y", "PAYMENT-SIGNATURE", s)
	if res.StatusCode != http.StatusConflict {
		t.Errorf("another URL: %d", res.StatusCode)
	}
	w.reload(w.caddyfile("price /paid/* $0.02"))
	res = w.get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.StatusCode == 402 || res.StatusCode == 200 {
		t.Errorf("after a new price: %d", res.StatusCode)
	}
}

// A facilitator that was never reached moved nothing, and the answer is not a
// 402: signing anew would help nobody.
func TestFacilitatorDown(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	w.fac.Close()
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	if w.up.hits.Load() != 0 {
		t.Error("the upstream ran")
	}
	w.expect(w.get("/free"), 200, "")
}

// A facilitator that settles slowly: the payer is told to come back, and gets
// the goods for the same payment.
func TestSlowSettlement(t *testing.T) {
	if testing.Short() {
		t.Log("waits 15 seconds")
	}
	w := newWorld(t, "price /paid/* $0.01")
	release := make(chan struct{})
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		<-release
		w.fac.move(rw, body)
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
	w.expect(res, 503, "settlement_pending")
	// While it goes on, the payment is in flight.
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 409, "payment_in_flight")
	close(release)
	var status int
	for range 100 {
		if status = w.get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode; status != 409 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status != 200 || w.fac.transfers() != 1 || w.fac.settled.Load() != 1 {
		t.Fatalf("%d, %d transfers, %d settles", status, w.fac.transfers(), w.fac.settled.Load())
	}
}

// What we send to the facilitator is ours but for what the payer signed, which
// goes untouched.
func TestFacilitatorSeesOurRequirement(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	p := newPayer(t)
	c := w.challenge(http.MethodGet, "/paid/x")
	s := p.sign(t, c.Accepts[0], time.Now())
	s.requirement.Extra = []byte(`{"version":"2","hint":"mine","name":"USDC"}`)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s.v2(t)), 200, "")
	var body struct {
		X402Version    int
		PaymentPayload struct {
			Accepted struct{ Extra map[string]string }
		}
		PaymentRequirements x402.Requirement
	}
	asked := w.fac.asked()
	if err := json.Unmarshal(asked[0], &body); err != nil {
		t.Fatal(err)
	}
	if body.X402Version != 2 || body.PaymentPayload.Accepted.Extra["hint"] != "mine" || strings.Contains(string(body.PaymentRequirements.Extra), "hint") {
		t.Errorf("%s", asked[0])
	}
}
