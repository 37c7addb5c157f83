package interop

import (
	"net/http"
	"strings"
	"testing"
)

// agents are habits of agents and wallets that speak HTTP themselves, and have the official
// library make their payment.
var agents = map[string]struct {
	method string
	env    []string
}{
	"price read by GET, POST paid":     {http.MethodPost, []string{"READ=GET"}},
	"price read by HEAD, DELETE paid":  {http.MethodDelete, []string{"READ=HEAD"}},
	"price read by OPTIONS, POST paid": {http.MethodPost, []string{"READ=OPTIONS"}},
	"price read by POST, GET paid":     {http.MethodGet, []string{"READ=POST"}},
	"said in both headers":             {http.MethodGet, []string{"SAY=PAYMENT-SIGNATURE X-PAYMENT"}},
	"version 2 said in X-PAYMENT":      {http.MethodPost, []string{"SAY=X-PAYMENT"}},
	"numbers as JSON numbers":          {http.MethodGet, []string{"SPELL=numbers"}},
	"numbers as hexadecimal":           {http.MethodGet, []string{"SPELL=hex"}},
	"byte order mark, version 2.0":     {http.MethodGet, []string{"SPELL=bom"}},
}

// officialPaymentsHoweverSaid: each pays once, the price, with a receipt that the library reads.
func officialPaymentsHoweverSaid(t *testing.T, stack *stack, upstream *upstream, origin string) {
	const route = "/paid/thing?said=otherwise"
	for name, agent := range agents {
		t.Run(name, func(t *testing.T) {
			payer, body := stack.Payers[0], ""
			if agent.method != http.MethodGet {
				body = "{}"
			}
			payerHad, hits := stack.balance(t, payer.Address), upstream.hits.Load()
			got := runClient(t, stack, "agent-v2.mjs", payer, agent.method, origin+route, body, agent.env...)
			if got.Status != http.StatusOK || !strings.HasPrefix(got.Body, "answer ") || got.Requests != 2 {
				t.Fatalf("status %d after %d requests, body %q", got.Status, got.Requests, got.Body)
			}
			if n := upstream.hits.Load() - hits; n != 1 {
				t.Errorf("the upstream was asked %d times, want once", n)
			}
			if moved := payerHad - stack.balance(t, payer.Address); moved != price {
				t.Errorf("the payer paid %d, want %d", moved, price)
			}
			checkReceipt(t, stack, got.Receipt, payer, "eip155:84532")
		})
	}
}
