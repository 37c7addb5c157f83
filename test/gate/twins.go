package gate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// Host is the name of both twins, so that the upstream sees no difference.
const Host = "site.test"

// Twins is a Caddy with one site twice: open, and behind the gate. Each of the
// two listens with TLS (HTTP/1.1, 2 and 3) and without (HTTP/1.1 and h2c). The
// upstream speaks HTTP/1.1 and h2c, and reads bodies only where a test says so.
type Twins struct {
	*World
	Open  Site
	Gated Site

	whole      testing.TB // t, before subtests took its place
	transports map[string]http.RoundTripper
}

// Site is where one of the two listens, as host:port.
type Site struct{ Plain, TLS string }

// TwinsConfig is what twins are made of.
type TwinsConfig struct {
	// Prices are the lines in the paywall block. Default: everything costs.
	Prices string
	// Around are directives of both sites, which Caddy orders itself.
	Around string
	// Behind answers. Default: a reverse_proxy to the upstream.
	Behind string
	// Block is all of the gated site where the default shape does not fit; {gate}
	// in it stands for the paywall directive, {up} for the upstream's address.
	Block string
	// Servers are more options of the servers.
	Servers string
	// AutoHTTPS is the global option of that name.
	AutoHTTPS string
}

// NewTwins starts both sites.
func NewTwins(t testing.TB, c TwinsConfig) *Twins {
	t.Helper()
	world := &World{T: t, Facilitator: NewFacilitator(t), Upstream: newUpstream(t, false), LogFile: filepath.Join(t.TempDir(), "log"), HTTP: &http.Client{}}
	world.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},
		{"x402Version":1,"scheme":"exact","network":"base-sepolia"}],"extensions":[],"signers":{}}`)
	w := &Twins{World: world, whole: t, transports: map[string]http.RoundTripper{}}
	w.Open = Site{loopback.FreeAddress(t), loopback.FreeAddress(t)}
	w.Gated = Site{loopback.FreeAddress(t), loopback.FreeAddress(t)}
	w.Load(w.Caddyfile(c))
	// The facilitator was asked in the background: wait until something is sold.
	method, path := http.MethodGet, "/x"
	for _, word := range strings.Fields(c.Prices) {
		if word == "POST" {
			method = word
		}
		if word[0] == '/' {
			path = strings.ReplaceAll(word, "*", "x")
			break
		}
	}
	probe := w.Gated.Client(t, "h1s")
	w.UntilThat("the gate sells "+path, func() bool { return probe.Send(w.Request(method, path)).StatusCode == http.StatusPaymentRequired })
	return w
}

// Caddyfile makes a whole Caddyfile of both sites.
func (w *Twins) Caddyfile(c TwinsConfig) string {
	if c.Prices == "" {
		c.Prices = "price /* $0.01"
	}
	if c.Behind == "" {
		c.Behind = "reverse_proxy {up}"
	}
	if c.AutoHTTPS == "" {
		c.AutoHTTPS = "disable_redirects"
	}
	gate := "paywall {\n accept base-sepolia usdc " + PayTo + "\n facilitator fake\n" + c.Prices + "\n}"
	open := c.Around + "\n" + c.Behind
	gated := c.Around + "\n" + gate + "\n" + c.Behind
	if c.Block != "" {
		open, gated = strings.ReplaceAll(c.Block, "{gate}", ""), strings.ReplaceAll(c.Block, "{gate}", gate)
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
			facilitator fake %s
		}
	}
	`, c.AutoHTTPS, w.LogFile, c.Servers, w.Facilitator.URL)
	for _, s := range []struct {
		Site
		content string
	}{{w.Open, open}, {w.Gated, gated}} {
		content := strings.ReplaceAll(s.content, "{up}", w.Upstream.Address())
		fmt.Fprintf(&b, "http://%s:%s {\n bind 127.0.0.1\n %s\n}\n", Host, port(s.Plain), content)
		fmt.Fprintf(&b, "https://%s:%s {\n bind 127.0.0.1\n tls %s %[3]s\n %s\n}\n", Host, port(s.TLS), certificate, content)
	}
	return b.String()
}

// Load runs a Caddyfile in this process.
func (w *Twins) Load(caddyfile string) {
	w.T.Helper()
	w.World.Load(caddyfile)
	w.afterStart(w.Open.TLS)
	w.afterStart(w.Gated.TLS)
}

// afterStart lets the race detector see that what HTTP/3 asks for at an address
// comes after Caddy's start. Caddy (2.11.9) starts its apps in any order, the tls
// app after the listeners too, and packets pass without the detector's knowledge.
// Whoever asks for a listener that is there shares a lock with its handshakes.
func (w *Twins) afterStart(address string) {
	w.T.Helper()
	if caddy.ListenerUsage("quicudp", address) == 0 {
		w.T.Fatalf("nobody listens for HTTP/3 at %s", address)
	}
	a, err := caddy.ParseNetworkAddress("udp/" + address)
	if err != nil {
		w.T.Fatal(err)
	}
	nobody := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("nobody asks here") }}
	l, err := a.ListenQUIC(w.T.Context(), 0, net.ListenConfig{}, nobody, nil, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	_ = l.Close() // no more connections
	_ = l.Close() // and let go of it
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// Request is a request to either of the twins, in the form that Send wants.
func (w *Twins) Request(method, uri string, header ...string) *http.Request {
	w.T.Helper()
	r, err := http.NewRequest(method, "http://"+Host+uri, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}
