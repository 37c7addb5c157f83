package interop

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// The well-known test accounts 1 and 2, which have test dollars on every
// development chain.
var devAccounts = []account{
	{"0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"},
	{"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"},
}

// The official clients, and those of others, buy from the demo as it is: our
// facilitator and our chain stand behind it, and they cannot tell.
func TestClientsBuyFromTheDemo(t *testing.T) {
	s, origin := startDemo(t)
	for i, client := range clients {
		for _, order := range []struct {
			method, path, body, answer string
			price                      int64
		}{
			{http.MethodGet, "/articles/7", "", "Worth every cent", 10_000},
			{http.MethodPost, "/api/render", `{"page":1}`, `"rendered_bytes":10`, 50_000},
		} {
			t.Run(strings.TrimSuffix(client.script, ".mjs")+" "+order.method, func(t *testing.T) {
				payer := devAccounts[i%2]
				payerHad, payeeHad := s.balance(t, payer.Address), s.balance(t, s.Payee)
				got := runClient(t, s, client.script, payer, order.method, origin+order.path, order.body)
				if got.Status != http.StatusOK || !strings.Contains(got.Body, order.answer) {
					t.Fatalf("status %d, body %q, receipt %+v", got.Status, got.Body, got.Receipt)
				}
				if paid := payerHad - s.balance(t, payer.Address); paid != order.price {
					t.Errorf("the payer paid %d, want %d", paid, order.price)
				}
				if got := s.balance(t, s.Payee) - payeeHad; got != order.price {
					t.Errorf("the payee got %d, want %d", got, order.price)
				}
				checkReceipt(t, s, got.Receipt, payer, client.network)
			})
		}
	}
	t.Run("third party", func(t *testing.T) { thirdPartyClientsBuy(t, s, origin) })
}

// The demo's model charges by the token, in a header: the official client, which
// has never approved anything, pays that and not the maximum.
func TestOfficialClientChatsWithTheDemo(t *testing.T) {
	s, origin := startDemo(t)
	payer := devAccounts[0]
	for _, chat := range []struct {
		prompt string
		price  int64
	}{
		{"How much is the fish?", 5*10 + 11*30}, // tokens of the prompt and of the answer
		{"Hello", 1*10 + 7*30},
	} {
		payerHad, payeeHad := s.balance(t, payer.Address), s.balance(t, s.Payee)
		body := `{"messages":[{"role":"user","content":"` + chat.prompt + `"}]}`
		got := runClient(t, s, "fetch-permit2.mjs", payer, http.MethodPost, origin+"/v1/chat/completions", body)
		if got.Status != http.StatusOK || !strings.Contains(got.Body, `"usage"`) {
			t.Fatalf("status %d, body %q, receipt %+v", got.Status, got.Body, got.Receipt)
		}
		if paid := payerHad - s.balance(t, payer.Address); paid != chat.price {
			t.Errorf("the payer paid %d, want %d", paid, chat.price)
		}
		if got := s.balance(t, s.Payee) - payeeHad; got != chat.price {
			t.Errorf("the payee got %d, want %d", got, chat.price)
		}
		if r := got.Receipt; !r.Success || r.Amount != fmt.Sprint(chat.price) || !s.receipt(t, r.Transaction).moves(s.Token, payer.Address, s.Payee, chat.price) {
			t.Errorf("receipt %+v", r)
		}
	}
	chatWithOurClient(t, s, origin)
}

// chatWithOurClient does the same with our own client, without gas being spent
// by it either.
func chatWithOurClient(t *testing.T, s *stack, origin string) {
	t.Helper()
	key, err := client.DevKey(2)
	if err != nil {
		t.Fatal(err)
	}
	limit, err := client.ParseLimit("0.50")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, origin+"/v1/chat/completions", strings.NewReader(`{"messages":[{"content":"Hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	had := s.balance(t, key.Address())
	c := &client.Client{Key: key, Limits: []client.Limit{limit}, RPC: s.RPC}
	result, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Response.Body.Close()
	if result.Outcome != client.Delivered || result.Receipt == nil || result.Receipt.Amount != "220" {
		t.Errorf("%s (%s), receipt %+v", result.Outcome, result.Code, result.Receipt)
	}
	if paid := had - s.balance(t, key.Address()); paid != 220 {
		t.Errorf("the payer paid %d, want 220", paid)
	}
}

// TestDemoOnce runs the demo as the README says, and believes its exit code.
func TestDemoOnce(t *testing.T) {
	out, err := demo(t, "-once").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"402 Payment Required", "200 OK", "9999.99 USDC", "TEST MONEY"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}

// demo is the demo's command on free ports.
func demo(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/demo").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, append([]string{
		"-config", "../../Caddyfile.example", "-site", "http://" + loopback.FreeAddress(t), "-chain", loopback.FreeAddress(t),
	}, args...)...)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd
}

// startDemo runs the demo until the test ends. It returns its chain and the
// origin of its shop.
func startDemo(t *testing.T) (*stack, string) {
	t.Helper()
	cmd := demo(t)
	cmd.Stderr = logTo(t, "demo")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	endWith(t, "the demo", cmd, func() { _ = cmd.Process.Signal(os.Interrupt) })
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Now you") {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			s := &stack{
				RPC:   "http://" + flagOf(cmd, "-chain"),
				Token: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
				Payee: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
			}
			return s, flagOf(cmd, "-site")
		}
	}
	t.Fatal("the demo ended before it invited anybody")
	return nil, ""
}

func flagOf(cmd *exec.Cmd, name string) string {
	for i, arg := range cmd.Args {
		if arg == name {
			return cmd.Args[i+1]
		}
	}
	return ""
}
