// Package interop holds the gateway to the software that its payers use: the
// official clients, unmodified and with their defaults, and the official
// facilitator, on a real EVM chain. See README.md.
package interop

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const price = 10_000 // $0.01 in atomic units

var clients = []struct {
	script  string
	network string // as this protocol version spells it in a receipt
}{
	{"fetch-v2.mjs", "eip155:84532"},
	{"axios-v2.mjs", "eip155:84532"},
	{"fetch-v1.mjs", "base-sepolia"},
	{"axios-v1.mjs", "base-sepolia"},
}

var methods = []struct{ name, body string }{
	{http.MethodGet, ""},
	{http.MethodPost, `{"text":"ein Käse","n":1}`},
}

// Through the official facilitator, and through our own.
func TestOfficialClientsPay(t *testing.T) {
	stack := startStack(t)
	t.Run("official facilitator", func(t *testing.T) { officialClientsPay(t, stack, stack.Facilitator) })
	t.Run("own facilitator", func(t *testing.T) { officialClientsPay(t, stack, ownFacilitator(t, stack)) })
}

func officialClientsPay(t *testing.T, stack *stack, facilitator string) {
	upstream := startUpstream(t)
	origin := startGateway(t, stack, upstream, facilitator)
	t.Run("Permit2 and upto", func(t *testing.T) { officialClientPaysByPermit2(t, stack, upstream, origin) })
	t.Run("however said", func(t *testing.T) { officialPaymentsHoweverSaid(t, stack, upstream, origin) })
	const route = "/paid/thing?of=many"

	// The helpers below assume that nothing else moves meanwhile: no t.Parallel.
	for i, client := range clients {
		for _, method := range methods {
			t.Run(strings.TrimSuffix(client.script, ".mjs")+" "+method.name, func(t *testing.T) {
				payer := stack.Payers[i]
				payerHad, payeeHad := stack.balance(t, payer.Address), stack.balance(t, stack.Payee)
				hits := upstream.hits.Load()

				got := runClient(t, stack, client.script, payer, method.name, origin+route, method.body)

				if got.Status != http.StatusOK {
					t.Fatalf("status %d, body %q, receipt %+v", got.Status, got.Body, got.Receipt)
				}
				if want := answer(hits+1, method.name, route, method.body); got.Body != want {
					t.Errorf("body %q, want %q", got.Body, want)
				}
				if n := upstream.hits.Load() - hits; n != 1 {
					t.Errorf("the upstream was asked %d times, want once", n)
				}
				if got.Requests != 2 {
					t.Errorf("the client sent %d requests, want 2: without and with the payment", got.Requests)
				}
				if moved := payerHad - stack.balance(t, payer.Address); moved != price {
					t.Errorf("the payer paid %d, want %d", moved, price)
				}
				if moved := stack.balance(t, stack.Payee) - payeeHad; moved != price {
					t.Errorf("the payee got %d, want %d", moved, price)
				}
				checkReceipt(t, stack, got.Receipt, payer, client.network)
			})
		}
	}

	for _, client := range clients {
		for _, method := range methods {
			t.Run(strings.TrimSuffix(client.script, ".mjs")+" "+method.name+" without money", func(t *testing.T) {
				payeeHad, hits := stack.balance(t, stack.Payee), upstream.hits.Load()
				got := runClient(t, stack, client.script, stack.Penniless, method.name, origin+route, method.body)
				if got.Status != http.StatusPaymentRequired || got.Requests != 2 {
					t.Errorf("status %d after %d requests, want 402 after 2", got.Status, got.Requests)
				}
				if got.Receipt != nil && got.Receipt.Success {
					t.Errorf("receipt %+v for what was not paid", got.Receipt)
				}
				checkNothingMoved(t, stack, upstream, payeeHad, hits)
			})
		}
	}

	for _, method := range methods {
		t.Run("no payment "+method.name, func(t *testing.T) {
			payeeHad, hits := stack.balance(t, stack.Payee), upstream.hits.Load()
			req, err := http.NewRequest(method.name, origin+route, strings.NewReader(method.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusPaymentRequired || resp.Header.Get("Payment-Required") == "" {
				t.Errorf("%s with headers %v, want a challenge", resp.Status, resp.Header)
			}
			checkNothingMoved(t, stack, upstream, payeeHad, hits)
		})
	}
}

// The artifacts in token/ are what their sources compile to.
func TestTokenArtifactsAreFresh(t *testing.T) {
	runNode(t, "token/build.mjs", "--check")
}

// The test dollar behaves like USDC where payments are concerned.
func TestToken(t *testing.T) {
	runNode(t, "--test", "token/")
}

// result is the line that the client scripts print.
type result struct {
	Status   int            `json:"status"`
	Body     string         `json:"body"`
	Receipt  *clientReceipt `json:"receipt"`
	Requests int            `json:"requests"`
}

// clientReceipt is PAYMENT-RESPONSE as the client library decodes it.
type clientReceipt struct {
	Success     bool   `json:"success"`
	Transaction string `json:"transaction"`
	Network     string `json:"network"`
	Payer       string `json:"payer"`
	ErrorReason string `json:"errorReason"`
	Amount      string `json:"amount"`
}

// runClient lets one official client make one request.
func runClient(t *testing.T, s *stack, script string, payer account, method, url, body string, env ...string) result {
	t.Helper()
	return runScript(t, s, filepath.Join("clients", script), payer, method, url, body, env...)
}

// runScript is runClient with a script anywhere.
func runScript(t *testing.T, s *stack, script string, payer account, method, url, body string, env ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), node(t), script, method, url, body)
	cmd.Env = append(append(os.Environ(), "PRIVATE_KEY="+payer.PrivateKey, "RPC_URL="+s.RPC), env...)
	cmd.Stderr = logTo(t, script)
	line, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	var r result
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%s said %q: %v", script, line, err)
	}
	return r
}

// checkReceipt compares what the payer was told with what the chain knows.
func checkReceipt(t *testing.T, s *stack, r *clientReceipt, payer account, network string) {
	t.Helper()
	if r == nil {
		t.Fatal("no receipt")
	}
	if !r.Success || r.Network != network || !strings.EqualFold(r.Payer, payer.Address) || r.ErrorReason != "" {
		t.Errorf("receipt %+v, want success on %s for %s", r, network, payer.Address)
	}
	tx := s.receipt(t, r.Transaction)
	if tx == nil || tx.Status != "0x1" {
		t.Fatalf("the chain says of transaction %q: %+v", r.Transaction, tx)
	}
	if !tx.spends(s.Token, payer.Address) {
		t.Errorf("transaction %s spent no authorization of %s", r.Transaction, payer.Address)
	}
}

func checkNothingMoved(t *testing.T, s *stack, u *upstream, payeeHad, hits int64) {
	t.Helper()
	if moved := s.balance(t, s.Payee) - payeeHad; moved != 0 {
		t.Errorf("%d moved", moved)
	}
	if n := u.hits.Load() - hits; n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func runNode(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), node(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}
