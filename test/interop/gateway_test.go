package interop

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startGateway builds Caddy with this module, as a user would, and runs it in
// front of the upstream, with a facilitator as a Caddyfile names it. It returns
// its origin.
func startGateway(t *testing.T, s *stack, u *upstream, facilitator string) string {
	t.Helper()
	dir := t.TempDir()
	origin := "http://" + loopback.FreeAddress(t)
	caddyfile := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	storage file_system %s
	paywall {
		ledger memory i_accept_loss
		facilitator some %s
	}
}
%s {
	paywall {
		accept base-sepolia usdc %s
		facilitator some
		price /paid/* $0.01 "A paid thing"
		price /permit2/* $0.02 {
			accept base-sepolia usdc %[4]s {
				transfer permit2
			}
		}
		price /tether/* $0.03 {
			accept base-sepolia %[5]s %[4]s {
				decimals 6
				transfer permit2
				peg usd
			}
		}
		price /usage/* upto $0.50 "What you use"
	}
	reverse_proxy %[6]s
}
`, filepath.Join(dir, "storage"), facilitator, origin, s.Payee, s.Tether, strings.TrimPrefix(u.URL, "http://"))
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(buildCaddy(t, dir), "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stdout = logTo(t, "gateway")
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	endWith(t, "the gateway", cmd, func() { _ = cmd.Process.Signal(os.Interrupt) })
	awaitChallenge(t, origin)
	return origin
}

// ownFacilitator is our own facilitator on the stack's chain, with two keys.
func ownFacilitator(t *testing.T, s *stack) string {
	t.Helper()
	another, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, "anvil_setBalance", crypto.PubkeyToAddress(another.PublicKey), "0x8ac7230489e80000")
	var signers []string
	for i, secret := range []string{s.Gas.PrivateKey, hex.EncodeToString(crypto.FromECDSA(another))} {
		key := filepath.Join(t.TempDir(), fmt.Sprintf("gas_key_%d", i))
		if err := os.WriteFile(key, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		signers = append(signers, "{file."+key+"}")
	}
	return fmt.Sprintf("evm {\n network base-sepolia {\n rpc %s\n signer %s\n approval_budget 1/day\n }\n }", s.RPC, strings.Join(signers, " "))
}

func buildCaddy(t *testing.T, dir string) string {
	t.Helper()
	binary := filepath.Join(dir, "caddy")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, bytes.TrimSpace(out))
	}
	return binary
}

// awaitChallenge waits until the gateway asks for money: it is up, and it has
// learned what the facilitator can do.
func awaitChallenge(t *testing.T, origin string) {
	t.Helper()
	last := "no answer"
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(origin + "/paid/ready")
		if err != nil {
			last = err.Error()
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusPaymentRequired {
			return
		}
		last = resp.Status
	}
	t.Fatalf("the gateway did not come up: %s", last)
}
