package promises

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Promise 1 and 5: whatever the facilitator says on /verify that is not a clear
// yes, nothing is served, and the upstream is not asked where that can be
// avoided.
func TestNothingIsServedWithoutAClearYes(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		code   string
	}{
		"no":              {gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`), 402, "insufficient_funds"},
		"no, 400":         {gate.Says(400, `{"isValid":false,"invalidReason":"insufficient_funds"}`), 402, "insufficient_funds"},
		"no, with a text": {gate.Says(200, `{"isValid":false,"invalidReason":"node https://secret:key@rpc failed"}`), 402, "payment_invalid"},
		"412 allowance":   {gate.Says(412, `{"isValid":false,"invalidReason":"permit2_allowance_required"}`), 402, "permit2_allowance_required"},
		"empty object":    {gate.Says(200, `{}`), 502, ""},
		"text true":       {gate.Says(200, `{"isValid":"true"}`), 502, ""},
		"number":          {gate.Says(200, `1`), 502, ""},
		"null":            {gate.Says(200, `null`), 502, ""},
		"empty":           {gate.Says(200, ``), 502, ""},
		"HTML":            {gate.Says(200, `<html>ok</html>`), 502, ""},
		"trailing junk":   {gate.Says(200, `{"isValid":true}x`), 502, ""},
		"duplicate":       {gate.Says(200, `{"isValid":true,"isValid":true}`), 502, ""},
		"500":             {gate.Says(500, `{"error":"boom"}`), 0, ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/settle", http.StatusTemporaryRedirect)
		}, 0, ""},
		"dropped":     {gate.Drop, 0, ""},
		"other payer": {gate.Says(200, `{"isValid":true,"payer":"0x0000000000000000000000000000000000000001"}`), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			hits := w.Upstream.Hits.Load()
			w.T = t
			w.Facilitator.OnVerify(tc.answer)
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
			if tc.status != 0 {
				w.Expect(res, tc.status, tc.code)
			} else if res.StatusCode != 502 && res.StatusCode != 503 {
				t.Errorf("status %d", res.StatusCode)
			}
			if res.StatusCode >= 500 && res.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if (res.Header.Get("Payment-Required") != "") != (res.StatusCode == 402) {
				t.Error("a challenge and a 402 belong together")
			}
			if strings.Contains(res.Text, "secret") || strings.Contains(res.Text, "boom") {
				t.Errorf("the facilitator's text leaked: %s", res.Text)
			}
			if w.Facilitator.Settled.Load() != 0 || w.Upstream.Hits.Load() != hits {
				t.Error("settled or served without a yes")
			}
			// The claim is free again: the same payment works once all is well.
			w.Facilitator.OnVerify(nil)
			settled := w.Facilitator.Settled.Load()
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
			w.Facilitator.Settled.Store(settled)
		})
	}
}

// Promises 1 to 4: what a settlement's answer means to the payer, held
// (GET) and first (POST).
func TestPayerIsToldWhatTheSettlementMeans(t *testing.T) {
	const tx = `"transaction":"0xabababababababababababababababababababababababababababababababab"`
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		code   string
		// later: what the same payment gets once the facilitator is well.
		later int
	}{
		"definite no":         {gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`), 402, "insufficient_funds", 200},
		"definite no, 400":    {gate.Says(400, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`), 402, "insufficient_funds", 200},
		"nonce used":          {gate.Says(200, `{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":"","network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"pending":             {gate.Says(500, `{"success":false,"errorReason":"settlement_pending",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"no, but transaction": {gate.Says(200, `{"success":false,"errorReason":"insufficient_funds",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"yes, no transaction": {gate.Says(200, `{"success":true,"transaction":"","network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"yes, other network":  {gate.Says(200, `{"success":true,`+tx+`,"network":"eip155:1"}`), 503, "settlement_pending", 200},
		"text yes":            {gate.Says(200, `{"success":"true",`+tx+`,"network":"eip155:84532"}`), 503, "settlement_pending", 200},
		"empty object":        {gate.Says(200, `{}`), 503, "settlement_pending", 200},
		"HTML":                {gate.Says(200, `<html>`), 503, "settlement_pending", 200},
		"500":                 {gate.Says(500, `{"error":"internal"}`), 503, "settlement_pending", 200},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/verify", http.StatusTemporaryRedirect)
		}, 503, "settlement_pending", 200},
		"dropped": {gate.Drop, 503, "settlement_pending", 200},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+" "+name, func(t *testing.T) {
				w := gate.New(t, "price /paid/* $0.01")
				w.Facilitator.OnSettle(tc.answer)
				s := w.Sign(method, "/paid/x", gate.NewPayer(t)).V2(t)
				res := w.Do(w.Request(method, "/paid/x", "PAYMENT-SIGNATURE", s))
				w.Expect(res, tc.status, tc.code)
				if res.Header.Get("X-Upstream") != "" || strings.Contains(res.Text, gate.Goods) {
					t.Errorf("something of the upstream leaked: %v %q", res.Header, res.Text)
				}
				if receipt := gate.ReceiptOf(t, res); receipt.Success || receipt.ErrorReason != tc.code {
					t.Errorf("receipt %+v", receipt)
				}
				if res.StatusCode == 503 && res.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				if (res.Header.Get("Payment-Required") != "") != (res.StatusCode == 402) {
					t.Error("a challenge and a 402 belong together")
				}
				if method == http.MethodPost && w.Upstream.Hits.Load() != 0 {
					t.Error("settle first, and the upstream ran")
				}
				w.Facilitator.OnSettle(nil)
				res = w.Do(w.Request(method, "/paid/x", "PAYMENT-SIGNATURE", s))
				w.Expect(res, tc.later, "")
				if w.Facilitator.Transfers() != 1 {
					t.Errorf("%d transfers", w.Facilitator.Transfers())
				}
				w.Expect(w.Again(func() gate.Answer { return w.Do(w.Request(method, "/paid/x", "PAYMENT-SIGNATURE", s)) }), 402, "payment_already_used")
			})
		}
	}
}

// A settlement that moved the money and lost its answer is found again by the
// identical repeat, within the same request.
func TestLostAnswerIsRepeated(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	var tries atomic.Int64
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if tries.Add(1) == 1 {
			w.Facilitator.Move(httptest.NewRecorder(), body)
			panic(http.ErrAbortHandler)
		}
		w.Facilitator.Move(rw, body)
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 200, "")
	w.Counts(1, 1, 2)
	if w.Facilitator.Transfers() != 1 {
		t.Fatal(w.Facilitator.Transfers())
	}
	asked := w.Facilitator.Asked()
	if n := len(asked); string(asked[n-1]) != string(asked[n-2]) {
		t.Error("the repeat is not identical")
	}
}

// After doubt a no proves nothing: the first call may be what emptied the
// account.
func TestNoAfterDoubtIsNoNo(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	var tries atomic.Int64
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`)(rw, r)
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	for range 3 {
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")
	}
	// Not for another URL either, and not with a requirement that no longer fits.
	res := w.Get("/paid/y", "PAYMENT-SIGNATURE", s)
	if res.StatusCode != http.StatusConflict {
		t.Errorf("another URL: %d", res.StatusCode)
	}
	w.Reload(w.Caddyfile("price /paid/* $0.02"))
	res = w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.StatusCode == 402 || res.StatusCode == 200 {
		t.Errorf("after a new price: %d", res.StatusCode)
	}
}

// A facilitator that was never reached moved nothing, and the answer is not a
// 402: signing anew would help nobody.
func TestFacilitatorThatIsDownIsNoRefusal(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Facilitator.Close()
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	if w.Upstream.Hits.Load() != 0 {
		t.Error("the upstream ran")
	}
	w.Expect(w.Get("/free"), 200, "")
}

// A facilitator that settles slowly: the payer is told to come back, and gets
// the goods for the same payment.
func TestSlowSettlementIsFetchedLater(t *testing.T) {
	if testing.Short() {
		t.Log("waits 15 seconds")
	}
	w := gate.New(t, "price /paid/* $0.01")
	release := make(chan struct{})
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		<-release
		w.Facilitator.Move(rw, body)
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
	w.Expect(res, 503, "settlement_pending")
	// While it goes on, the payment is in flight.
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 409, "payment_in_flight")
	close(release)
	var status int
	for range 100 {
		if status = w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode; status != 409 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status != 200 || w.Facilitator.Transfers() != 1 || w.Facilitator.Settled.Load() != 1 {
		t.Fatalf("%d, %d transfers, %d settles", status, w.Facilitator.Transfers(), w.Facilitator.Settled.Load())
	}
}

// What we send to the facilitator is ours but for what the payer signed, which
// goes untouched.
func TestFacilitatorSeesOurRequirement(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	p := gate.NewPayer(t)
	c := w.Challenge(http.MethodGet, "/paid/x")
	s := p.Sign(t, c.Accepts[0], time.Now())
	s.Requirement.Extra = []byte(`{"version":"2","hint":"mine","name":"USDC"}`)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 200, "")
	var body struct {
		X402Version    int
		PaymentPayload struct {
			Accepted struct{ Extra map[string]string }
		}
		PaymentRequirements x402.Requirement
	}
	asked := w.Facilitator.Asked()
	if err := json.Unmarshal(asked[0], &body); err != nil {
		t.Fatal(err)
	}
	if body.X402Version != 2 || body.PaymentPayload.Accepted.Extra["hint"] != "mine" || strings.Contains(string(body.PaymentRequirements.Extra), "hint") {
		t.Errorf("%s", asked[0])
	}
}

// `error 402` behind the gate is no challenge: the money of its payer has moved.
func TestError402IsNoChallenge(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "error /paid/* 402\nhandle_errors {\n respond sorry 402\n}")
	res := w.Pay(http.MethodPost, "/paid/x")
	w.Expect(res, 502, "upstream_failed")
	if !gate.ReceiptOf(t, res).Success || w.Facilitator.Transfers() != 1 {
		t.Errorf("%v, %d transfers", res.Header, w.Facilitator.Transfers())
	}
}
