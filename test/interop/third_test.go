package interop

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
)

// thirdParty are the clients that others publish, unmodified and pinned, each in a folder of
// third/ with what it needs.
var thirdParty = []struct {
	folder   string
	script   string
	packages map[string]string // their versions, as installed
}{
	{"mppx", "buy.mjs", map[string]string{"mppx": "0.11.0"}},
	{"mppx", "command.mjs", map[string]string{"mppx": "0.11.0"}},
	{"faremeter", "buy.mjs", map[string]string{"@faremeter/fetch": "0.22.0", "@faremeter/payment-evm": "0.22.0"}},
	{"dexter", "buy.mjs", map[string]string{"@dexterai/x402": "2.0.0"}},
	{"cdp", "buy.mjs", map[string]string{"@coinbase/cdp-sdk": "1.57.0", "@x402/fetch": "2.27.0"}},
}

// notTried are the clients that are known and cannot buy here, and why.
var notTried = map[string]string{
	"agentcash 0.14.4":        "it pays on the main networks of Base, Solana and Tempo only, and asks https://agentcash.dev for the balance before it pays",
	"agents 0.32.0":           "its withX402Client pays for tools of MCP and wraps a client of that, not of HTTP",
	"x402-mcp 0.0.5":          "its withPayment pays for tools of MCP and wraps a client of that, not of HTTP",
	"mppx 0.11.0, mcp/client": "it pays for tools of MCP and wraps a client of that, not of HTTP",
	"@x402/mcp":               "it pays for tools of MCP, and cannot be installed: the registry answered 404 in November 2026",
}

// thirdPartyClientsBuy: each gets what it asked for with two requests, pays its price once,
// and is told of the transaction.
func thirdPartyClientsBuy(t *testing.T, s *stack, origin string) {
	for name, why := range notTried {
		t.Logf("%s is not tried: %s", name, why)
	}
	payeeHad := s.balance(t, s.Payee)
	t.Run("each", func(t *testing.T) {
		for _, client := range thirdParty {
			t.Run(client.folder+" "+strings.TrimSuffix(client.script, ".mjs"), func(t *testing.T) {
				t.Parallel() // each has an account of its own
				for name, version := range client.packages {
					checkInstalled(t, client.folder, name, version)
				}
				payer := fundedAccount(t, s)
				payerHad := s.balance(t, payer.Address)

				script := filepath.Join("third", client.folder, client.script)
				got := runScript(t, s, script, payer, http.MethodPost, origin+"/api/render", `{"page":1}`)

				if got.Status != http.StatusOK || !strings.Contains(got.Body, `"rendered_bytes":10`) {
					t.Fatalf("status %d, body %q, receipt %+v", got.Status, got.Body, got.Receipt)
				}
				if got.Requests != 2 {
					t.Errorf("it sent %d requests, want 2: without and with the payment", got.Requests)
				}
				if paid := payerHad - s.balance(t, payer.Address); paid != renderPrice {
					t.Errorf("the payer paid %d, want %d", paid, renderPrice)
				}
				checkReceipt(t, s, got.Receipt, payer, "eip155:84532")
			})
		}
	})
	if got, want := s.balance(t, s.Payee)-payeeHad, int64(len(thirdParty))*renderPrice; got != want {
		t.Errorf("the payee got %d, want %d", got, want)
	}
}

const renderPrice = 50_000 // of POST /api/render in Caddyfile.example

// checkInstalled fails when a folder of third/ does not have this version of a package.
func checkInstalled(t *testing.T, folder, name, version string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("third", folder, "node_modules", name, "package.json"))
	if err != nil {
		t.Fatalf("%s is missing: run `make deps`", name)
	}
	var installed struct{ Version string }
	if err := json.Unmarshal(data, &installed); err != nil {
		t.Fatal(err)
	}
	if installed.Version != version {
		t.Errorf("%s %s is installed, want %s: run `make deps`", name, installed.Version, version)
	}
}

// fundedAccount is a new account that the demo's chain has given money.
func fundedAccount(t *testing.T, s *stack) account {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	a := account{crypto.PubkeyToAddress(key.PublicKey).Hex(), "0x" + hex.EncodeToString(crypto.FromECDSA(key))}
	resp, err := http.Post(s.RPC+"/fund/"+a.Address, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the tap: %s", resp.Status)
	}
	return a
}
