package evm

import (
	"encoding/json"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	pastHead  = 100_000 // the last block
	blockTime = 2       // seconds
)

// past is what a scripted node has in its blocks.
type past struct {
	behind   int64 // seconds that its last block is old
	final    int64 // blocks that its final block is below the last; < 0: it has no such tag
	state    string
	events   []chain.Event // of one transaction
	logs     []chain.Event // what it answers to eth_getLogs, if not the events
	block    uint64        // that the transaction is in
	reverted bool
	widest   uint64 // blocks that it searches at once
	narrow   int    // status that it refuses more with; 0 for an error of JSON-RPC
	lost     bool   // no receipt
	reorged  bool   // the receipt is of another block
	pruned   uint64 // it has no block before this one
	down     bool
	short    uint64 // blocks that it has fewer
	searches int
}

var pastTx = common.HexToHash("0xabc1")

// hashOf is the hash of a block.
func hashOf(number uint64) common.Hash {
	return common.BigToHash(new(big.Int).SetUint64(number + 1))
}

// tell starts a node that has this past.
func (p *past) tell(t testing.TB, c *clock) *scripted {
	t.Helper()
	s := script(t, c, world{})
	if p.down {
		s.Close()
	}
	if p.widest == 0 {
		p.widest = 20_000
	}
	s.override = p.answer(c)
	if p.narrow != 0 {
		inner := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner.ServeHTTP(&statusWriter{ResponseWriter: w, status: p.narrow}, r)
		})
	}
	return s
}

// statusWriter gives errors a status, as some providers do.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) Write(b []byte) (int, error) {
	var answer struct{ Error *rpcError }
	if json.Unmarshal(b, &answer) == nil && answer.Error != nil {
		w.WriteHeader(w.status)
	}
	return w.ResponseWriter.Write(b)
}

func (p *past) answer(c *clock) func(string, []json.RawMessage) (any, *rpcError, bool) {
	return func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		switch method {
		case "eth_getBlockByNumber":
			b, err := p.header(c, params[0])
			return b, err, true
		case "eth_call":
			var at hexutil.Uint64
			if json.Unmarshal(params[1], &at) != nil || uint64(at) != pastHead-p.short {
				return nil, &rpcError{Code: -32000, Message: "the state of no other block was to be asked for"}, true
			}
			switch p.state {
			case "used":
				return common.BigToHash(common.Big1), nil, true
			case "unused":
				return common.Hash{}, nil, true
			case "nonsense":
				return "0x", nil, true
			}
			return nil, &rpcError{Code: 3, Message: "execution reverted"}, true
		case "eth_getLogs":
			p.searches++
			return p.search(params[0])
		case "eth_getTransactionReceipt":
			if p.lost {
				return nil, nil, true
			}
			r := map[string]any{"transactionHash": pastTx, "blockNumber": hexutil.Uint64(p.block), "blockHash": hashOf(p.block), "status": "0x1", "logs": p.events}
			if p.reverted {
				r["status"] = "0x0"
			}
			if p.reorged {
				r["blockHash"] = hashOf(1)
			}
			return r, nil, true
		}
		return nil, nil, false
	}
}

func (p *past) header(c *clock, which json.RawMessage) (any, *rpcError) {
	var tag string
	_ = json.Unmarshal(which, &tag)
	var number hexutil.Uint64
	switch tag {
	case "latest":
		number = hexutil.Uint64(pastHead - p.short)
	case "finalized":
		if p.final < 0 {
			return nil, &rpcError{Code: -32602, Message: "invalid block tag"}
		}
		number = hexutil.Uint64(pastHead - p.final)
	default:
		_ = json.Unmarshal(which, &number)
	}
	if uint64(number) < p.pruned {
		return nil, nil
	}
	at := c.now().Unix() - p.behind - int64(pastHead-number)*blockTime
	return map[string]any{"number": number, "hash": hashOf(uint64(number)), "timestamp": hexutil.Uint64(at)}, nil
}

func (p *past) search(raw json.RawMessage) (any, *rpcError, bool) {
	var filter struct {
		FromBlock, ToBlock hexutil.Uint64
		Topics             []any
	}
	_ = json.Unmarshal(raw, &filter)
	from, to := uint64(filter.FromBlock), uint64(filter.ToBlock)
	if to < from || to > pastHead || len(filter.Topics) != 3 {
		return nil, &rpcError{Code: -32602, Message: "invalid block range"}, true
	}
	if to-from+1 > p.widest {
		return nil, &rpcError{Code: -32005, Message: "query exceeds max block range"}, true
	}
	if p.logs != nil {
		return p.logs, nil, true
	}
	found := []chain.Event{}
	for _, e := range p.events {
		if p.block >= from && p.block <= to && (e.Topics[0] == usedTopic || e.Topics[0] == canceledTopic) {
			found = append(found, e)
		}
	}
	return found, nil, true
}

// voided is the proof that a payment never moves money.
func voided(reason x402.Code) facilitator.Proof {
	return facilitator.Proof{Evidence: facilitator.Void, Reason: string(reason)}
}

// mostSearches is how often a Look asks a node for events.
const mostSearches = 200

// What tokens write about a payment.
func useOf(p *chain.Payment) chain.Event {
	return chain.Event{Address: p.Token, Topics: []common.Hash{usedTopic, chain.AddressTopic(p.From), p.Nonce}, Transaction: pastTx}
}

func cancelOf(p *chain.Payment) chain.Event {
	return chain.Event{Address: p.Token, Topics: []common.Hash{canceledTopic, chain.AddressTopic(p.From), p.Nonce}, Transaction: pastTx}
}

func transferOf(p *chain.Payment, to common.Address, value uint64) chain.Event {
	v := common.BigToHash(new(big.Int).SetUint64(value))
	return chain.Event{Address: p.Token, Topics: []common.Hash{transferTopic, chain.AddressTopic(p.From), chain.AddressTopic(to)}, Data: v[:], Transaction: pastTx}
}

// paying is a good payment, when it ends, and what a token writes about it.
func paying(t testing.TB) (r facilitator.Request, p *chain.Payment, ends time.Time, own []chain.Event) {
	t.Helper()
	r, _ = good(t)
	p, ok := chain.Signed(r)
	if !ok {
		t.Fatal("not decoded")
	}
	return r, p, time.Unix(p.Authorization.ValidBefore, 0), []chain.Event{useOf(p), transferOf(p, p.To, p.Value.Uint64())}
}

// lookAt makes a Look at nodes that have these pasts. They count as nodes of a
// real chain.
func lookAt(t testing.TB, c *clock, pasts []*past, change ...func(*chain.Chain)) (*chain.Look, func() string) {
	t.Helper()
	var urls []string
	for _, p := range pasts {
		urls = append(urls, p.tell(t, c).URL)
	}
	f, logs := start(t, baseSepolia, &Network{RPC: urls}, c)
	l := lookWith(t, urls, chain.Options{Logger: f.logger, Now: c.now}, change...)
	return l, func() string { return logged(logs) }
}

// lookWith makes a Look at Base Sepolia, as it is at a real chain.
func lookWith(t testing.TB, urls []string, o chain.Options, change ...func(*chain.Chain)) *chain.Look {
	t.Helper()
	c, err := chain.New("base-sepolia", urls, o)
	if err != nil {
		t.Fatal(err)
	}
	c.Development, c.Confirmations = false, 3 // as NewLook has them
	for _, f := range change {
		f(c)
	}
	l := new(chain.Look)
	if err := l.Add(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}
