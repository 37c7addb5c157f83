package promises

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Agents read a price by GET, HEAD or OPTIONS, and pay the POST; no browser can send
// Upgrade with fetch. The price of a line is the same for all of them, and which comes first,
// the money or the upstream, is decided by the request that is paid.
func TestPriceReadByAnotherMethodIsPaid(t *testing.T) {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodDelete, upgrades}
	w := gate.New(t, "price /paid/* $0.01")
	for _, read := range methods {
		for _, paid := range methods {
			for name, keepsQuote := range map[string]bool{"": true, ", the quote dropped": false} {
				t.Run(read+" then "+paid+name, func(t *testing.T) {
					w.T = t
					asked := challengeOf(w, read)
					if !keepsQuote { // clients with typed objects drop what they do not know
						asked.Quote = ""
					}
					before := w.Facilitator.Settled.Load()
					ran := int64(-1) // how many were settled when the upstream ran
					w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
						ran = w.Facilitator.Settled.Load() - before
						_, _ = rw.Write([]byte("goods"))
					})
					w.Expect(w.Do(requestOf(w, paid, "PAYMENT-SIGNATURE", gate.Sign(t, asked).V2(t))), 200, "")
					first := int64(0)
					if paid == http.MethodPost || paid == http.MethodDelete || paid == upgrades {
						first = 1
					}
					if ran != first || w.Facilitator.Settled.Load() != before+1 {
						t.Errorf("%d settlements before the upstream ran, want %d; %d in all", ran, first, w.Facilitator.Settled.Load()-before)
					}
					asIsRequired(t, w.Facilitator.Asked())
				})
			}
		}
	}
}

// upgrades is a GET that wants a WebSocket.
const upgrades = "upgrade"

func requestOf(w *gate.World, method string, header ...string) *http.Request {
	if method == upgrades {
		return w.Request(http.MethodGet, "/paid/x", append(header, "Connection", "Upgrade", "Upgrade", "websocket")...)
	}
	return w.Request(method, "/paid/x", header...)
}

func challengeOf(w *gate.World, method string) x402.Requirement {
	w.T.Helper()
	w.Challenge(http.MethodGet, "/paid/x") // waits for the facilitator
	c, err := x402.DecodeChallenge(w.Do(requestOf(w, method)).Header.Get("Payment-Required"))
	if err != nil {
		w.T.Fatal(err)
	}
	return c.Accepts[0]
}

// asIsRequired looks at what a facilitator was asked last: some want that what was accepted
// and what is required are equal.
func asIsRequired(t *testing.T, asked [][]byte) {
	t.Helper()
	var body struct {
		Payment struct {
			Accepted jsontext.Value `json:"accepted"`
		} `json:"paymentPayload"`
		Required jsontext.Value `json:"paymentRequirements"`
	}
	if err := json.Unmarshal(asked[len(asked)-1], &body); err != nil {
		t.Fatal(err)
	}
	accepted, required := body.Payment.Accepted, body.Required
	if accepted.Canonicalize() != nil || required.Canonicalize() != nil || string(accepted) != string(required) {
		t.Errorf("accepted %s\nrequired %s", accepted, required)
	}
}

// A quote is bound to its line, whatever the method by which it was read, and outlives a new
// price there.
func TestEarlierQuoteReadByAnotherMethodStaysPayable(t *testing.T) {
	for name, tc := range map[string]struct{ read, pay string }{
		"read by GET, paid by POST": {http.MethodGet, http.MethodPost},
		"read by POST, paid by GET": {http.MethodPost, http.MethodGet},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			asked := w.Challenge(tc.read, "/paid/x").Accepts[0]
			w.Reload(w.Caddyfile("price /paid/* $0.02\nprice /paid/other/* $0.02"))
			advance := gate.Clock(t)
			w.Expect(w.Do(w.Request(tc.pay, "/paid/other/x", "PAYMENT-SIGNATURE", gate.Sign(t, asked).V2(t))), 402, "no_matching_requirements")
			w.Expect(w.Do(w.Request(tc.pay, "/paid/x", "PAYMENT-SIGNATURE", gate.Sign(t, asked).V2(t))), 200, "")
			w.Expect(w.Do(w.Request(tc.pay, "/paid/x", "X-PAYMENT", gate.Sign(t, asked).V1(t))), 200, "")
			advance(400 * time.Second)
			late := gate.NewPayer(t).Sign(t, asked, time.Now().Add(400*time.Second)).V2(t)
			w.Expect(w.Do(w.Request(tc.pay, "/paid/x", "PAYMENT-SIGNATURE", late)), 402, "no_matching_requirements")
		})
	}
}

// Nobody signs the flow, so a payer can write there what he likes, and gains nothing: what
// pays first pays first.
func TestPayerDoesNotChooseWhatComesFirst(t *testing.T) {
	for name, flow := range map[string]string{
		"as offered": `"upfront"`, "none": "", "null": "null", "the default": `"authorization"`, "another": `"escrow"`, "no word": `{"a":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
			asked := w.Challenge(http.MethodPost, "/paid/x").Accepts[0]
			asked.Extra = withFlow(t, asked, flow)
			w.Expect(w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", gate.Sign(t, asked).V2(t))), 402, "insufficient_funds")
			if n := w.Upstream.Hits.Load(); n != 0 {
				t.Errorf("the upstream ran %d times for who did not pay", n)
			}
		})
	}
}

// withFlow is the extra of a requirement with another paymentFlow; "" is none.
func withFlow(t *testing.T, r x402.Requirement, flow string) jsontext.Value {
	t.Helper()
	const ours = `"paymentFlow":"upfront"`
	extra := string(r.Extra)
	if !strings.Contains(extra, ours) {
		t.Fatal(extra)
	}
	if flow == "" {
		return jsontext.Value(strings.Replace(strings.Replace(extra, ours+",", "", 1), ","+ours, "", 1))
	}
	return jsontext.Value(strings.Replace(extra, ours, fmt.Sprintf(`"paymentFlow":%s`, flow), 1))
}
