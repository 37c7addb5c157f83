//go:build servers

package servers

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

const payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// gate is where Caddy serves a server's site: open, and behind the gate.
type gate struct {
	*server
	open, gated string // addresses
}

// startCaddy runs a Caddy in this process with every server's site twice.
func startCaddy(t *testing.T, servers []*server) []*gate {
	t.Helper()
	var gates []*gate
	var b strings.Builder
	fmt.Fprintf(&b, `{
		admin off
		persist_config off
		auto_https off
		grace_period 1s
		log {
			output file %s/caddy.log
		}
		paywall {
			ledger memory i_accept_loss
		}
	}
	`, t.TempDir())
	for _, s := range servers {
		g := &gate{s, loopback.FreeAddress(t), loopback.FreeAddress(t)}
		gates = append(gates, g)
		paywall := fmt.Sprintf("%s\n paywall {\n accept base-sepolia usdc %s\n facilitator broke\n %s\n}", postMatcher, payTo, prices)
		// Whatever the Host, so that it gives no way out of the gate.
		for address, directive := range map[string]string{g.open: "", g.gated: paywall} {
			_, port, _ := strings.Cut(address, ":")
			fmt.Fprintf(&b, "http://:%s {\n bind 127.0.0.1\n %s\n %s\n}\n", port, directive, s.behind)
		}
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(b.String()), nil)
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		t.Fatalf("loading:\n%s\n%v", b.String(), err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	for _, g := range gates {
		g.waitForOffer(t)
	}
	return gates
}

// waitForOffer waits until the facilitator, who is asked in the background, has
// said what it takes.
func (g *gate) waitForOffer(t *testing.T) {
	t.Helper()
	for range 200 {
		a := send(g.gated, plain(g.goods[0]).bytes("wait"), patience)
		if strings.HasPrefix(string(a), "HTTP/1.1 402 ") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: %s is not for sale", g.name, g.goods[0].path)
}

// acted are the probes that made the site act, with what it did. A request that
// lost its name on the way is "unknown".
func (s *server) acted(t *testing.T) map[string]string {
	t.Helper()
	log, err := os.ReadFile(s.actions)
	if err != nil {
		t.Fatal(err)
	}
	acted := map[string]string{}
	for line := range strings.Lines(string(log)) {
		probe, action, _ := strings.Cut(strings.TrimSpace(line), " ")
		acted[probe] = action
	}
	return acted
}
