package paywall_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
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
	w := prepareWorld(t)
	w.fac.kinds.Store(twoNetworks)
	s := w.withScript()
	node := newFakeNode(t, "a")
	config := func(options string, nodes ...*fakeNode) string {
		return onNodes(onScript(w.caddyfile(options)), w.fac.URL, nodes...)
	}
	asked := func(n int64) {
		t.Helper()
		w.until(func() bool { return node.asked.Load() >= n })
	}
	const options = "price /paid/* $0.01"
	w.load(config(options, node))
	asked(1)
	w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
	signed := w.sign(http.MethodGet, "/paid/y", newPayer(t)).v2(t)
	w.fac.onSettle(w.fac.lost)
	doubt := w.sign(http.MethodGet, "/paid/z", newPayer(t)).v2(t)
	w.expect(w.get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "settlement_pending")
	w.fac.onSettle(nil)

	node.first.Store("b")
	w.reload(config(options, node))
	w.until(func() bool { return w.get("/paid/x").StatusCode == 503 })
	w.waitForLog("correct the rpc URLs, or give this chain a ledger of its own")
	verified, settled := w.fac.verified.Load(), w.fac.settled.Load()
	w.expect(w.get("/paid/y", "PAYMENT-SIGNATURE", signed), 503, "no_facilitator")
	w.expect(w.get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "no_facilitator")
	s.visible.Store(true)
	before := s.rounds.Load()
	w.until(func() bool { return s.rounds.Load() >= before+2 }) // the first is through

	// Another network goes on being sold.
	w.reload(config("accept base-sepolia usdc "+payTo+"\naccept base usdc "+payTo+"\n"+options, node))
	w.until(func() bool { return len(w.challenge(http.MethodGet, "/paid/x").Accepts) == 1 })
	if c := w.challenge(http.MethodGet, "/paid/x"); c.Accepts[0].Network != "eip155:8453" {
		t.Errorf("offered: %+v", c.Accepts)
	}
	if res := w.get("/paid/y", "PAYMENT-SIGNATURE", signed); res.StatusCode != 402 {
		t.Errorf("a payment on the closed network: %d %s", res.StatusCode, res.body)
	}
	w.expect(w.get("/paid/z", "PAYMENT-SIGNATURE", doubt), 503, "settlement_pending")
	if w.fac.verified.Load() != verified || w.fac.settled.Load() != settled {
		t.Errorf("%d verifies and %d settles on a closed network", w.fac.verified.Load()-verified, w.fac.settled.Load()-settled)
	}

	// Nodes that disagree are no better, and nothing goes on record.
	node.first.Store("a")
	other := newFakeNode(t, "c")
	w.reload(config(options, node, other))
	w.until(func() bool { return w.get("/paid/x").StatusCode == 503 })

	// The right one is.
	w.reload(config(options, node))
	w.until(func() bool { return w.get("/paid/x").StatusCode == 402 })
	w.until(func() bool { return w.get("/paid/z", "PAYMENT-SIGNATURE", doubt).StatusCode == 200 })
	w.expect(w.get("/paid/y", "PAYMENT-SIGNATURE", signed), 200, "")
	if w.fac.transfers() != 3 {
		t.Errorf("%d transfers", w.fac.transfers())
	}
}

// Nodes that cannot be asked close nothing, and loading does not wait for them.
func TestSilentNodesCloseNothing(t *testing.T) {
	w := prepareWorld(t)
	w.withScript()
	node := newFakeNode(t, "a")
	node.Close()
	w.load(onNodes(onScript(w.caddyfile("price /paid/* $0.01")), w.fac.URL, node))
	w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
}
