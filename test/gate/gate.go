package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
)

// World is a real Caddy with a gate, a facilitator before the money and an
// upstream behind the gate.
type World struct {
	T           testing.TB // subtests put their own here
	URL         string     // origin of the site
	Facilitator *Facilitator
	Upstream    *Upstream
	HTTP        *http.Client
	LogFile     string // the file with Caddy's log
}

// New starts one. The options are the lines inside the site's paywall
// block; what is left out is filled in. More are directives around it.
func New(t testing.TB, options string, more ...string) *World {
	t.Helper()
	w := Prepare(t)
	w.Load(w.Caddyfile(options, more...))
	return w
}

// Prepare makes one without a gate yet.
func Prepare(t testing.TB) *World {
	t.Helper()
	ForgetPayers() // the bounds are of the process, and all tests come from one network
	dir := t.TempDir()
	t.Cleanup(func() { leavesNothing(t) }) // before dir is removed, which may have the ledger
	w := &World{T: t, Facilitator: NewFacilitator(t), Upstream: newUpstream(t, true), LogFile: filepath.Join(dir, "log")}
	w.HTTP = &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	t.Cleanup(w.HTTP.CloseIdleConnections)
	w.URL = "http://" + loopback.FreeAddress(t)
	return w
}

// leavesNothing waits until what a test began has ended, after Caddy has stopped, and fails
// it if that takes long: its ledger would be gone, and the next test would wait for it.
func leavesNothing(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for ctx.Err() == nil && isServing() { // Caddy waits for its requests at an exit alone
		time.Sleep(time.Millisecond)
	}
	if settlement.Drain(ctx); ctx.Err() != nil {
		t.Error("requests of this test go on, or settlements, or records of them")
	}
}

// isServing says whether a gate has a request.
func isServing() bool {
	var goroutines strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&goroutines, 1)
	return strings.Contains(goroutines.String(), "paywall.(*Handler).ServeHTTP")
}

// Caddyfile makes a whole Caddyfile; see New.
func (w *World) Caddyfile(options string, more ...string) string {
	if !strings.Contains(options, "accept ") {
		options = "accept base-sepolia usdc " + PayTo + "\n" + options
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
	}`, w.LogFile, w.Facilitator.URL, w.URL, strings.Join(more, "\n"), options, w.Upstream.Address())
}

// Load runs a Caddyfile in this process.
func (w *World) Load(caddyfile string) {
	w.T.Helper()
	if err := Load(caddyfile); err != nil {
		w.T.Fatalf("loading:\n%s\n%v", caddyfile, err)
	}
	w.T.Cleanup(func() { _ = caddy.Stop() })
	loopback.Settle(w.T)
	w.HTTP.CloseIdleConnections() // which lead to the servers of an earlier config
	w.WaitForSupported()
}

// Reload runs another Caddyfile and waits until it is the one that answers: the
// servers of the old one end in the background.
func (w *World) Reload(caddyfile string) {
	w.T.Helper()
	mark := fmt.Sprint(reloads.Add(1))
	w.Load(strings.Replace(caddyfile, "reverse_proxy", "header X-Config "+mark+"\nreverse_proxy", 1))
	w.Until(func() bool {
		w.HTTP.CloseIdleConnections()
		res := w.Get("/free")
		return res.Err == nil && res.Header.Get("X-Config") == mark
	})
}

var reloads atomic.Int64

// Load runs a Caddyfile in this process.
func Load(caddyfile string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		return err
	}
	return caddy.Load(adapted, true)
}

// Validate says what is wrong with a Caddyfile, without running it.
func Validate(caddyfile string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		return err
	}
	return ValidateJSON(adapted)
}

// ValidateJSON does so for Caddy's JSON.
func ValidateJSON(config []byte) error {
	var c caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	return caddy.Validate(&c)
}

// WaitForSupported waits until the gate has heard of the facilitator, so that
// tests do not depend on who comes first.
func (w *World) WaitForSupported() {
	for range 500 {
		if w.Facilitator.Supported.Load() > 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// WaitForLog waits until Caddy's log has a text.
func (w *World) WaitForLog(text string) {
	w.T.Helper()
	w.Until(func() bool {
		log, _ := os.ReadFile(w.LogFile)
		return strings.Contains(string(log), text)
	})
}

// Logged is how often Caddy's log has a text.
func (w *World) Logged(text string) int {
	w.T.Helper()
	log, err := os.ReadFile(w.LogFile)
	if err != nil {
		w.T.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// Until repeats until something is so; a test that cannot get there fails.
func (w *World) Until(so func() bool) {
	w.T.Helper()
	w.UntilThat("what was waited for is so", so)
}

// UntilThat says of what it waits for.
func (w *World) UntilThat(what string, so func() bool) {
	w.T.Helper()
	for range 500 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.T.Fatalf("it did not come to be that %s", what)
}

// ComesGood waits for longer than the longest pause between two probes.
func (w *World) ComesGood(so func() bool) {
	w.T.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if so() {
			return
		}
	}
	w.T.Fatal("it did not come good")
}

// ExamplePayee is the payee of the examples: real money for him does not load.
const ExamplePayee = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// What a gate sells, for which token, and to whom.
const (
	PayTo = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed" // from EIP-55: on real networks the payees of examples do not load
	USDC  = "0x036CbD53842c5426634e7929541eC2318f3dCF7e" // on Base Sepolia
	Goods = "the goods"
)
