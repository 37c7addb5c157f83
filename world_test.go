package paywall_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	payTo  = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed" // from EIP-55: on real networks the payees of examples do not load
	usdc   = "0x036CbD53842c5426634e7929541eC2318f3dCF7e" // on Base Sepolia
	sample = "the goods"
)

func TestMain(m *testing.M) {
	// Caddy keeps state in the user's directories; tests must not.
	dir, err := os.MkdirTemp("", "paywall-test-")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	code := m.Run()
	_ = caddy.Stop()
	os.RemoveAll(dir)
	os.Exit(code)
}

// world is a real Caddy with a gate, a scriptable facilitator before the money
// and a counting upstream behind the gate.
type world struct {
	t    *testing.T
	gate string // origin of the site
	fac  *fakeFacilitator
	up   *fakeUpstream
	http *http.Client
	log  string // the file with Caddy's log
}

// newWorld starts one. The options are the lines inside the site's paywall
// block; what is left out is filled in. More are directives around it.
func newWorld(t *testing.T, options string, more ...string) *world {
	t.Helper()
	w := prepareWorld(t)
	w.load(w.caddyfile(options, more...))
	return w
}

// prepareWorld makes one without a gate yet.
func prepareWorld(t *testing.T) *world {
	t.Helper()
	forgetPayers() // the bounds are of the process, and all tests come from one network
	w := &world{t: t, fac: newFakeFacilitator(t), up: newFakeUpstream(t), log: filepath.Join(t.TempDir(), "log")}
	w.http = &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	t.Cleanup(w.http.CloseIdleConnections)
	w.gate = "http://" + loopback.FreeAddress(t)
	return w
}

func (w *world) caddyfile(options string, more ...string) string {
	if !strings.Contains(options, "accept ") {
		options = "accept base-sepolia usdc " + payTo + "\n" + options
	}
	if !strings.Contains(options, "facilitator ") {
		options = "facilitator fake\n" + options
	}
	return fmt.Sprintf(`{
		admin off
		persist_config off
		auto_https off
		grace_period 5s
		log {
			output file %s
			level DEBUG
		}
		paywall {
			ledger memory i_accept_loss
			facilitator fake %s
		}
	}
	%s {
		%s
		paywall {
			%s
		}
		reverse_proxy %s {
			flush_interval -1
		}
	}`, w.log, w.fac.URL, w.gate, strings.Join(more, "\n"), options, strings.TrimPrefix(w.up.URL, "http://"))
}

// load runs a Caddyfile in this process.
func (w *world) load(caddyfile string) {
	w.t.Helper()
	if err := load(caddyfile); err != nil {
		w.t.Fatalf("loading:\n%s\n%v", caddyfile, err)
	}
	w.t.Cleanup(func() { _ = caddy.Stop() })
	loopback.Settle(w.t)
	w.http.CloseIdleConnections() // which lead to the servers of an earlier config
	w.waitForSupported()
}

// waitForSupported waits until the gate has heard of the facilitator, so that
// tests do not depend on who comes first.
func (w *world) waitForSupported() {
	for range 500 {
		if w.fac.supported.Load() > 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waitForLog waits until Caddy's log has a text.
func (w *world) waitForLog(text string) {
	w.t.Helper()
	w.until(func() bool {
		log, _ := os.ReadFile(w.log)
		return strings.Contains(string(log), text)
	})
}

// logged is how often Caddy's log has a text.
func (w *world) logged(text string) int {
	w.t.Helper()
	log, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

func load(caddyfile string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		return err
	}
	return caddy.Load(adapted, true)
}

// answerOf is an answer, read to its end.
type answerOf struct {
	*http.Response
	body string
	err  error
}

func (w *world) do(r *http.Request) answerOf {
	w.t.Helper()
	res, err := w.http.Do(r)
	if err != nil {
		return answerOf{Response: &http.Response{}, err: err} // of status 0, for those who look at that alone
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answerOf{res, string(body), err}
}

func (w *world) request(method, path string, header ...string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.gate+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func (w *world) get(path string, header ...string) answerOf {
	w.t.Helper()
	return w.do(w.request(http.MethodGet, path, header...))
}

// challenge asks without paying and returns the decoded challenge.
func (w *world) challenge(method, path string) x402.Challenge {
	w.t.Helper()
	res := w.do(w.request(method, path))
	for range 200 {
		if res.err != nil || !strings.Contains(res.body, "no_facilitator") {
			break
		}
		// The facilitator has answered, but nobody has read it yet.
		time.Sleep(10 * time.Millisecond)
		res = w.do(w.request(method, path))
	}
	if res.err != nil || res.StatusCode != http.StatusPaymentRequired {
		w.t.Fatalf("unpaid %s %s: want 402, got %v %v", method, path, res.Response, res.err)
	}
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		w.t.Fatalf("challenge: %v", err)
	}
	return c
}

// pay asks for the price and pays it.
func (w *world) pay(method, path string) answerOf {
	w.t.Helper()
	return w.do(w.request(method, path, "PAYMENT-SIGNATURE", w.sign(method, path, newPayer(w.t)).v2(w.t)))
}

// sign makes a payment for a path.
func (w *world) sign(method, path string, p *payer) *signed {
	w.t.Helper()
	c := w.challenge(method, path)
	return p.sign(w.t, c.Accepts[0], time.Now())
}

func (w *world) expect(res answerOf, status int, code string) {
	w.t.Helper()
	if res.err != nil {
		w.t.Fatalf("want %d %s, got error %v", status, code, res.err)
	}
	if res.StatusCode != status {
		w.t.Fatalf("want %d %s, got %d %s", status, code, res.StatusCode, res.body)
	}
	if code == "" {
		return
	}
	var body struct {
		Error string `json:"error"`
	}
	err := json.Unmarshal([]byte(res.body), &body)
	if header := res.Header.Get(x402.HeaderPaymentRequired); header != "" {
		var c x402.Challenge
		c, err = x402.DecodeChallenge(header)
		body.Error = c.Error
	}
	if err != nil || body.Error != code {
		w.t.Fatalf("want code %q, got %q (%v)", code, res.body, err)
	}
}

// counts compares what the upstream and the facilitator have seen.
func (w *world) counts(upstream, verified, settled int64) {
	w.t.Helper()
	if u, v, s := w.up.hits.Load(), w.fac.verified.Load(), w.fac.settled.Load(); u != upstream || v != verified || s != settled {
		w.t.Fatalf("want %d upstream, %d verify, %d settle; got %d, %d, %d", upstream, verified, settled, u, v, s)
	}
}

func receiptOf(t *testing.T, res answerOf) x402.Receipt {
	t.Helper()
	r, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
	if err != nil {
		t.Fatalf("receipt %q: %v", res.Header.Get(x402.HeaderPaymentResponse), err)
	}
	return r
}
