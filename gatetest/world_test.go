package gatetest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

const (
	host  = "site.test" // of both sites, so that the upstream sees no difference
	payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
)

// world is a Caddy with one site twice: open, and behind the gate. Each of the
// two listens with TLS (HTTP/1.1, 2 and 3) and without (HTTP/1.1 and h2c).
type world struct {
	t    testing.TB
	up   *upstream
	fac  *counter
	log  string // the file with Caddy's log
	open site
	gate site

	whole      testing.TB // t, before subtests took its place
	transports map[string]http.RoundTripper
}

// site is where one of the two listens.
type site struct{ plain, tls string } // host:port

// config is what a world is made of.
type config struct {
	// prices are the lines in the paywall block. Default: everything costs.
	prices string
	// around are directives of both sites, which Caddy orders itself.
	around string
	// behind answers. Default: a reverse_proxy to the world's upstream.
	behind string
	// block is all of the gated site where the default shape does not fit; {gate}
	// in it stands for the paywall directive, {up} for the upstream's address.
	block string
	// servers are more options of the servers.
	servers string
	// autoHTTPS is the global option of that name.
	autoHTTPS string
}

func newWorld(t testing.TB, c config) *world {
	t.Helper()
	w := &world{t: t, up: newUpstream(t), fac: counting, log: filepath.Join(t.TempDir(), "log"), whole: t, transports: map[string]http.RoundTripper{}}
	w.fac.reset()
	w.open = site{loopback.FreeAddress(t), loopback.FreeAddress(t)}
	w.gate = site{loopback.FreeAddress(t), loopback.FreeAddress(t)}
	w.load(w.caddyfile(c))
	// The facilitator was asked in the background: wait until something is sold.
	method, path := http.MethodGet, "/x"
	for _, word := range strings.Fields(c.prices) {
		if word == "POST" {
			method = word
		}
		if word[0] == '/' {
			path = strings.ReplaceAll(word, "*", "x")
			break
		}
	}
	probe := w.gate.client(t, "h1s")
	w.until("the gate sells "+path, func() bool {
		return probe.send(w.request(method, path)).StatusCode == http.StatusPaymentRequired
	})
	return w
}

func (w *world) caddyfile(c config) string {
	if c.prices == "" {
		c.prices = "price /* $0.01"
	}
	if c.behind == "" {
		c.behind = "reverse_proxy {up}"
	}
	if c.autoHTTPS == "" {
		c.autoHTTPS = "disable_redirects"
	}
	gate := "paywall {\n accept base-sepolia usdc " + payTo + "\n facilitator counting\n" + c.prices + "\n}"
	open := c.around + "\n" + c.behind
	gated := c.around + "\n" + gate + "\n" + c.behind
	if c.block != "" {
		open, gated = strings.ReplaceAll(c.block, "{gate}", ""), strings.ReplaceAll(c.block, "{gate}", gate)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{
		admin off
		persist_config off
		auto_https %s
		grace_period 2s
		log {
			output file %s
			level DEBUG
		}
		servers {
			protocols h1 h2 h2c h3
			%s
		}
		paywall {
			ledger memory i_accept_loss
		}
	}
	`, c.autoHTTPS, w.log, c.servers)
	for _, s := range []struct {
		site
		content string
	}{{w.open, open}, {w.gate, gated}} {
		content := strings.ReplaceAll(s.content, "{up}", w.up.address)
		fmt.Fprintf(&b, "http://%s:%s {\n bind 127.0.0.1\n %s\n}\n", host, port(s.plain), content)
		fmt.Fprintf(&b, "https://%s:%s {\n bind 127.0.0.1\n tls %s %[3]s\n %s\n}\n", host, port(s.tls), certificate, content)
	}
	return b.String()
}

// load runs a Caddyfile in this process.
func (w *world) load(caddyfile string) {
	w.t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err == nil {
		err = caddy.Load(adapted, true)
	}
	if err != nil {
		w.t.Fatalf("loading:\n%s\n%v", caddyfile, err)
	}
	w.t.Cleanup(func() { _ = caddy.Stop() })
	loopback.Settle(w.t)
	w.afterStart(w.open.tls)
	w.afterStart(w.gate.tls)
}

// afterStart lets the race detector see that what HTTP/3 asks for at an address
// comes after Caddy's start. Caddy (2.11.9) starts its apps in any order, the tls
// app after the listeners too, and packets pass without the detector's knowledge.
// Whoever asks for a listener that is there shares a lock with its handshakes.
func (w *world) afterStart(address string) {
	w.t.Helper()
	if caddy.ListenerUsage("quicudp", address) == 0 {
		w.t.Fatalf("nobody listens for HTTP/3 at %s", address)
	}
	a, err := caddy.ParseNetworkAddress("udp/" + address)
	if err != nil {
		w.t.Fatal(err)
	}
	nobody := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("nobody asks here") }}
	l, err := a.ListenQUIC(w.t.Context(), 0, net.ListenConfig{}, nobody, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = l.Close() // no more connections
	_ = l.Close() // and let go of it
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// until repeats until something is so; a test that cannot get there fails.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	for range 500 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("it did not come to be that %s", what)
}

// logged is what Caddy has logged.
func (w *world) logged() string {
	log, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(log)
}

// request is a request to a site, in the form that send wants.
func (w *world) request(method, uri string, header ...string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, "http://"+host+uri, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func countOf(s, part string) int { return strings.Count(s, part) }
