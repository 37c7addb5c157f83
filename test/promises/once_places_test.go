package promises

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Tests of what a price is: the gate it stands in, and its line. What was offered or
// sold at one buys nothing at another, though the URL is the same.

// gateAt is one block: what leads to it, who is paid, and what it asks.
type gateAt struct{ before, after, payTo, price string }

// gatesCaddyfile makes a config with several blocks before one upstream, which is told
// the number of the block in the header X-Gate.
func gatesCaddyfile(w *gate.World, blocks ...gateAt) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n admin off\n persist_config off\n auto_https off\n log {\n output file %s\n level DEBUG\n }\n paywall {\n ledger memory i_accept_loss\n facilitator fake %s\n }\n}\n", w.LogFile, w.Facilitator.URL)
	for i, g := range blocks {
		to := g.payTo
		if to == "" {
			to = gate.PayTo
		}
		fmt.Fprintf(&b, "%s\npaywall {\n accept base-sepolia usdc %s\n facilitator fake\n price /articles/* %s\n}\nreverse_proxy %s {\n header_up X-Gate %d\n}\n%s\n",
			g.before, to, g.price, strings.TrimPrefix(w.Upstream.URL, "http://"), i, g.after)
	}
	return b.String()
}

// goodsOf is what the upstream gives for a block.
func goodsOf(block int) string { return fmt.Sprintf("goods of %d", block) }

func givesGoodsOfGates(w *gate.World) {
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "goods of "+r.Header.Get("X-Gate"))
	})
}

// askAt asks at an origin, under a name.
func askAt(w *gate.World, origin, host, path string, header ...string) gate.Answer {
	w.T.Helper()
	r := w.Request(http.MethodGet, path, header...)
	r.URL.Host = strings.TrimPrefix(origin, "http://")
	r.Host = host
	return w.Do(r)
}

func offerIn(t *testing.T, res gate.Answer) x402.Requirement {
	t.Helper()
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		t.Fatalf("%d: %v", res.StatusCode, err)
	}
	return c.Accepts[0]
}

func TestQuotesAndPurchasesAreOfTheirGate(t *testing.T) {
	const ofTheCheapSeller = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	type gates struct {
		blocks     func(a, b string) []gateAt // the first is the cheap one
		dearHeader []string                   // leads to the dear one
		twoPorts   bool
	}
	for name, tc := range map[string]gates{
		"two ports": {
			blocks: func(a, b string) []gateAt {
				return []gateAt{{"http://" + a + " {", "}", "", "$0.01"}, {"http://" + b + " {", "}", "", "$1"}}
			},
			twoPorts: true,
		},
		"two blocks of one site": {
			blocks: func(a, _ string) []gateAt {
				return []gateAt{
					{"http://" + a + " {\n@premium header X-Tier premium\nhandle {", "}", "", "$0.01"},
					{"handle @premium {", "}\n}", "", "$1"},
				}
			},
			dearHeader: []string{"X-Tier", "premium"},
		},
		"two sellers": {
			blocks: func(a, b string) []gateAt {
				return []gateAt{{"http://" + a + " {", "}", ofTheCheapSeller, "$1"}, {"http://" + b + " {", "}", "", "$1"}}
			},
			twoPorts: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			first, second := loopback.FreeAddress(t), loopback.FreeAddress(t)
			port := func(address string) string { return address[strings.LastIndex(address, ":"):] }
			w.Load(gatesCaddyfile(w, tc.blocks(port(first), port(second))...))
			cheap, dear := "http://"+first, "http://"+second
			if !tc.twoPorts {
				dear = cheap
			}
			givesGoodsOfGates(w)
			asked := offerIn(t, askAt(w, cheap, "shop.example", "/articles/1"))
			p := gate.NewPayer(t)
			quote := p.Sign(t, asked, time.Now()).V2(t)
			res := askAt(w, dear, "shop.example", "/articles/1", append(tc.dearHeader, "PAYMENT-SIGNATURE", quote)...)
			w.Expect(res, 402, "no_matching_requirements")

			w.Upstream.On(gate.BreaksOff)
			owed := p.Sign(t, asked, time.Now()).V2(t)
			_ = askAt(w, cheap, "shop.example", "/articles/1", "PAYMENT-SIGNATURE", owed)
			if w.Facilitator.Transfers() != 1 {
				t.Fatal(w.Facilitator.Transfers(), "transfers")
			}
			givesGoodsOfGates(w)
			res = w.Again(func() gate.Answer {
				return askAt(w, dear, "shop.example", "/articles/1", append(tc.dearHeader, "PAYMENT-SIGNATURE", owed)...)
			})
			w.Expect(res, 409, "payment_bought_something_else")
			res = askAt(w, dear, "shop.example", "/articles/1", append(tc.dearHeader, "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))...)
			w.Expect(res, 402, "no_matching_requirements")
			// At its own gate it is had.
			res = askAt(w, cheap, "shop.example", "/articles/1", "PAYMENT-SIGNATURE", owed)
			if res.Text != goodsOf(0) || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d %q, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
			}
		})
	}
}

// What is owed, and what was quoted, outlives a reload that touches other sites.
func TestReloadOfOtherSitesKeepsWhatIsOwed(t *testing.T) {
	w := gate.Prepare(t)
	first, second := loopback.FreeAddress(t), loopback.FreeAddress(t)
	mine := gateAt{"http://" + second + " {", "}", "", "$0.01"}
	onDisk := strings.NewReplacer("ledger memory i_accept_loss", "ledger sqlite "+t.TempDir()+"/payments.db")
	w.Load(onDisk.Replace(gatesCaddyfile(w, mine)))
	origin := "http://" + second
	w.Upstream.On(gate.BreaksOff)
	p := gate.NewPayer(t)
	asked := offerIn(t, askAt(w, origin, second, "/articles/1"))
	_ = askAt(w, origin, second, "/articles/1", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
	quote := p.Sign(t, offerIn(t, askAt(w, origin, second, "/articles/2")), time.Now()).V2(t)

	dearer := mine
	dearer.price = "$0.02"
	w.Load(onDisk.Replace(gatesCaddyfile(w, gateAt{"http://" + first + " {", "}", "", "$5"}, dearer)))
	givesGoodsOfGates(w)
	res := askAt(w, origin, second, "/articles/2", "PAYMENT-SIGNATURE", quote)
	if res.Text != goodsOf(1) {
		t.Errorf("quoted before the reload: %d %s", res.StatusCode, res.Text)
	}
	fresh := p.Sign(t, offerIn(t, askAt(w, origin, second, "/articles/1")), time.Now()).V2(t)
	res = askAt(w, origin, second, "/articles/1", "PAYMENT-SIGNATURE", fresh)
	if res.Text != goodsOf(1) || w.Facilitator.Transfers() != 2 {
		t.Errorf("owed before the reload: %d %s, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
	}
}

// In JSON a matcher needs no name. Two lines are two, whatever their names.
func TestLinesWithUnnamedMatchersAreTwo(t *testing.T) {
	w := gate.Prepare(t)
	file := w.Caddyfile("price @cheap /articles/* $0.01\n price @dear /articles/* $1", "@cheap header X-Tier cheap\n@dear header X-Tier dear")
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	unnamed := regexp.MustCompile(`"matcher_name":"@\w+",?`).ReplaceAll(adapted, nil)
	unnamed = bytes.ReplaceAll(unnamed, []byte(",}"), []byte("}"))
	if bytes.Equal(unnamed, adapted) {
		t.Fatal("no names in", string(adapted))
	}
	if err := caddy.Load(unnamed, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	w.WaitForSupported()
	var asked x402.Requirement
	w.Until(func() bool { return w.Get("/articles/1", "X-Tier", "cheap").StatusCode == 402 })
	asked = offerIn(t, w.Get("/articles/1", "X-Tier", "cheap"))
	res := w.Get("/articles/1", "X-Tier", "dear", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t))
	w.Expect(res, 402, "no_matching_requirements")
}
