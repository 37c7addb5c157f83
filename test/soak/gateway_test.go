package soak

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// gateway is one Caddy: a process that dies and comes back on the same ports
// with the same files.
type gateway struct {
	t      testing.TB
	dir    string
	config string // the Caddyfile
	// variants are what a reload may load: the same, with other keys for the gas.
	variants []string
	maimed   *atomic.Bool // the world's
	host     string       // where it listens
	plain    string       // http://…
	secret   string       // https://…, for HTTP/2 and 3
	admin    *http.Client

	mu   sync.Mutex // guards cmd and dead
	cmd  *exec.Cmd
	dead chan error // gets how the process ended
	log  *os.File
}

// shop says what differs between the gateways of the tests.
type shop struct {
	ledger      string   // the words after `ledger`; default: a file
	facilitator string   // own or remote; see world.gateway
	timeout     string   // of the remote one's /verify; default: the product's
	confirm     bool     // the remote one is believed when the chain shows it
	lines       []string // more lines for the directive
	wrap        []string // what the process is started with
	twin        *gateway // one with the same ports, on another machine: here, at the next address
}

// gateway starts a gateway.
func (w *world) gateway(s shop) *gateway {
	w.t.Helper()
	dir := w.t.TempDir()
	g := &gateway{t: w.t, maimed: &w.maimed, dir: dir, host: "127.0.0.1", plain: "http://" + loopback.FreeAddress(w.t), secret: "https://" + loopback.FreeAddress(w.t)}
	if s.twin != nil {
		last := strings.LastIndexByte(s.twin.host, '.') + 1
		n, err := strconv.Atoi(s.twin.host[last:])
		w.must(err)
		g.host = s.twin.host[:last] + strconv.Itoa(n+1)
		g.plain, g.secret = strings.Replace(s.twin.plain, s.twin.host, g.host, 1), strings.Replace(s.twin.secret, s.twin.host, g.host, 1)
	}
	var keys []string
	for i, a := range w.Accounts()[:gasKeys] {
		key := filepath.Join(dir, fmt.Sprintf("gas%d", i))
		w.must(os.WriteFile(key, []byte(a.PrivateKey), 0o600))
		keys = append(keys, "{file."+key+"}")
	}
	if s.ledger == "" {
		s.ledger = fileLedger(dir)
	}
	facilitator := "facilitator f " + w.remote.URL
	if s.timeout != "" {
		facilitator += " {\n timeout " + s.timeout + "\n }"
	}
	if s.confirm {
		facilitator += " {\n rpc base-sepolia " + w.RPC() + "\n confirm\n }"
	}
	if s.facilitator == "own" {
		facilitator = fmt.Sprintf("facilitator f evm {\n network base-sepolia {\n rpc %s\n %s\n }\n }", w.RPC(), signers(keys[0]))
	}
	g.config = fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	storage file_system %[1]s/storage
	grace_period 5s
	paywall {
		ledger %[2]s
		%[3]s
	}
}
%[4]s, %[5]s {
	bind %[9]s
	tls internal
	paywall {
		accept base-sepolia usdc %[6]s
		facilitator f
		price /paid/* $0.01 "A thing"
		%[7]s
	}
	reverse_proxy %[8]s
}
`, dir, s.ledger, facilitator, strings.Replace(g.plain, g.host, "", 1), strings.Replace(g.secret, g.host, "localhost", 1), w.payee.Hex(),
		strings.Join(s.lines, "\n"), strings.TrimPrefix(w.up.URL, "http://"), g.host)
	w.must(os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(g.config), 0o600))
	for _, line := range []string{signers(keys[0]), signers(keys[1]), signers(keys...), signers(keys[1], keys[0])} {
		g.variants = append(g.variants, strings.Replace(g.config, signers(keys[0]), line, 1))
	}
	var err error
	g.log, err = os.Create(filepath.Join(dir, "log"))
	w.must(err)
	g.admin = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		},
	}}
	w.t.Cleanup(func() {
		g.stop()
		g.findRaces()
		if w.t.Failed() {
			g.showLog()
		}
	})
	g.start(s.wrap...)
	return g
}

func signers(keys ...string) string { return "signer " + strings.Join(keys, " ") }

// start starts the process and waits until it asks for money.
func (g *gateway) start(wrap ...string) {
	g.t.Helper()
	_ = os.Remove(filepath.Join(g.dir, "admin.sock")) // of the one that was killed
	args := append(wrap, caddy(g.t), "run", "--config", filepath.Join(g.dir, "Caddyfile"), "--adapter", "caddyfile")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+g.dir, "XDG_DATA_HOME="+g.dir, "XDG_CONFIG_HOME="+g.dir)
	cmd.Stdout, cmd.Stderr = g.log, g.log
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	dead := make(chan error, 1)
	go func() { dead <- cmd.Wait() }()
	g.mu.Lock()
	g.cmd, g.dead = cmd, dead
	g.mu.Unlock()
	last := "no answer"
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end) && len(dead) == 0; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(g.plain + "/paid/ready")
		if err != nil {
			last = err.Error()
			continue
		}
		resp.Body.Close()
		if last = resp.Status; resp.StatusCode == http.StatusPaymentRequired {
			return
		}
	}
	g.t.Fatalf("the gateway does not come up: %s", last)
}

// kill is kill -9.
func (g *gateway) kill() {
	g.maimed.Store(true)
	g.end(syscall.SIGKILL)
}

// stop ends the process as an operator does, so that the ledger is closed.
func (g *gateway) stop() { g.end(syscall.SIGTERM) }

func (g *gateway) end(how os.Signal) {
	g.mu.Lock()
	cmd, dead := g.cmd, g.dead
	g.cmd = nil
	g.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(how)
	late := time.AfterFunc(150*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := <-dead; err != nil && how != syscall.SIGKILL {
		g.t.Errorf("the gateway ended badly: %v", err)
	}
}

// reload loads one of the variants of the config. It fails when the gateway is
// killed meanwhile, which is no error.
func (g *gateway) reload(variant int) error {
	req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1/load", strings.NewReader(g.variants[variant]))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // it may not have changed
	resp, err := g.admin.Do(req)
	if err != nil {
		return nil //nolint:nilerr // it is down
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body)
		return errors.New(resp.Status + ": " + string(said))
	}
	return nil
}

// findRaces looks for what the race detector said, also of processes that were
// killed.
func (g *gateway) findRaces() {
	b, err := os.ReadFile(g.log.Name())
	if err != nil {
		g.t.Error(err)
	}
	if at := bytes.Index(b, []byte("WARNING: DATA RACE")); at >= 0 {
		g.t.Errorf("the gateway has a race:\n%s", b[at:min(len(b), at+8<<10)])
	}
}

// showLog shows the end of the log.
func (g *gateway) showLog() {
	b, err := os.ReadFile(g.log.Name())
	if err != nil {
		return
	}
	if keep := os.Getenv("SOAK_LOG"); keep != "" {
		_ = os.WriteFile(filepath.Join(keep, strings.ReplaceAll(g.t.Name()+"_"+filepath.Base(g.dir), "/", "_")+".log"), b, 0o600)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	g.t.Logf("the end of the gateway's log:\n%s", bytes.Join(lines[max(0, len(lines)-30):], []byte("\n")))
}

// client makes a client with connections of its own. They come from loopback,
// whatever the protocol.
func client(protocol func(*http.Transport)) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}, //nolint:gosec // Caddy's own, of this minute
		MaxIdleConnsPerHost: 1000,
		DisableCompression:  true,
	}
	if protocol != nil {
		protocol(tr)
	}
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}
}
