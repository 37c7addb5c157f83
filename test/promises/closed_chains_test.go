package promises

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// fakeNode is a node of Base Sepolia, or of a chain that says so.
type fakeNode struct {
	*httptest.Server
	first atomic.Value // string: the hash of its first block
	asked atomic.Int64
}

func newFakeNode(t *testing.T, first string) *fakeNode {
	n := &fakeNode{}
	n.first.Store(first)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var calls []struct {
			ID     json.RawMessage
			Method string
		}
		_ = json.NewDecoder(r.Body).Decode(&calls)
		answers := []map[string]any{}
		for _, c := range calls {
			a := map[string]any{"jsonrpc": "2.0", "id": c.ID}
			switch c.Method {
			case "eth_chainId":
				a["result"] = "0x14a34"
			case "eth_getBlockByNumber":
				a["result"] = map[string]string{"number": "0x0", "hash": "0x" + strings.Repeat(n.first.Load().(string), 64)}
				n.asked.Add(1)
			default:
				a["error"] = map[string]any{"code": -32601, "message": "no such method"}
			}
			answers = append(answers, a)
		}
		_ = json.NewEncoder(w).Encode(answers)
	}))
	t.Cleanup(n.Close)
	return n
}

// onNodes lets a config look at Base Sepolia through nodes.
func onNodes(caddyfile, facilitator string, nodes ...*fakeNode) string {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL)
	}
	return strings.Replace(caddyfile, "facilitator fake "+facilitator, "facilitator fake "+facilitator+" {\n rpc base-sepolia "+strings.Join(urls, " ")+"\n}", 1)
}

// A network whose nodes are on another chain than the ledger's payments is not
// sold on, nor are payments in doubt judged by it.
func TestAnotherChainIsClosed(t *testing.T) {
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(twoNetworks)
	s := w.WithLedger()
	node := newFakeNode(t, "a")
	config := func(options string, nodes ...*fakeNode) string {
		return onNodes(gate.OnLedger(w.Caddyfile(options)), w.Facilitator.URL, nodes...)
	}
	asked := func(n int64) {
		t.Helper()
		w.Until(func() bool { return node.asked.Load() >= n })
	}
	const options = "price /paid/* $0.01"
	w.Load(config(options, node))
	asked(1)
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	signed := w.Sign(http.MethodGet, "/paid/y", gate.NewPayer(t)).V2(t)
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	doubt := w.Sign(http.MethodGet, "/paid/z", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "settlement_pending")
	w.Facilitator.OnSettle(nil)

	node.first.Store("b")
	w.Reload(config(options, node))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 503 })
	w.WaitForLog("correct the rpc URLs, or give this chain a ledger of its own")
	verified, settled := w.Facilitator.Verified.Load(), w.Facilitator.Settled.Load()
	w.Expect(w.Get("/paid/y", "PAYMENT-SIGNATURE", signed), 503, "no_facilitator")
	w.Expect(w.Get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "no_facilitator")
	s.Visible.Store(true)
	before := s.Rounds.Load()
	w.Until(func() bool { return s.Rounds.Load() >= before+2 }) // the first is through

	// Another network goes on being sold.
	w.Reload(config("accept base-sepolia usdc "+gate.PayTo+"\naccept base usdc "+gate.PayTo+"\n"+options, node))
	w.Until(func() bool { return len(w.Challenge(http.MethodGet, "/paid/x").Accepts) == 1 })
	if c := w.Challenge(http.MethodGet, "/paid/x"); c.Accepts[0].Network != "eip155:8453" {
		t.Errorf("offered: %+v", c.Accepts)
	}
	if res := w.Get("/paid/y", "PAYMENT-SIGNATURE", signed); res.StatusCode != 402 {
		t.Errorf("a payment on the closed network: %d %s", res.StatusCode, res.Text)
	}
	w.Expect(w.Get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "settlement_pending")
	if w.Facilitator.Verified.Load() != verified || w.Facilitator.Settled.Load() != settled {
		t.Errorf("%d verifies and %d settles on a closed network", w.Facilitator.Verified.Load()-verified, w.Facilitator.Settled.Load()-settled)
	}

	// Nodes that disagree are no better, and nothing goes on record.
	node.first.Store("a")
	other := newFakeNode(t, "c")
	w.Reload(config(options, node, other))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 503 })

	// The right one is.
	w.Reload(config(options, node))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	w.Until(func() bool { return w.Get("/paid/z", "PAYMENT-SIGNATURE", doubt).StatusCode == 200 })
	w.Expect(w.Get("/paid/y", "PAYMENT-SIGNATURE", signed), 200, "")
	if w.Facilitator.Transfers() != 3 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
}

// Nodes that cannot be asked close nothing, and loading does not wait for them.
func TestSilentNodesCloseNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.WithLedger()
	node := newFakeNode(t, "a")
	node.Close()
	w.Load(onNodes(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")), w.Facilitator.URL, node))
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}
