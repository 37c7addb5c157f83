package evm

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// preexecuting is a node that runs a transaction before it takes it, as those of
// several rollups do, and private ones of Ethereum.
type preexecuting struct {
	chain.Client
	first func()            // is called before
	says  func(error) error // how it tells a revert; nil is as geth does
}

func (n *preexecuting) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method != "eth_sendRawTransaction" {
		return n.Client.CallContext(ctx, result, method, args...)
	}
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(args[0].(hexutil.Bytes)); err != nil {
		return err
	}
	n.first()
	var out hexutil.Bytes
	err := n.Client.CallContext(ctx, &out, "eth_call", map[string]any{
		"from": sentBy(tx), "to": tx.To(), "gas": hexutil.Uint64(tx.Gas()), "data": hexutil.Bytes(tx.Data()),
		"maxFeePerGas": (*hexutil.Big)(tx.GasFeeCap()), "maxPriorityFeePerGas": (*hexutil.Big)(tx.GasTipCap()),
	}, "latest")
	if err == nil {
		return n.Client.CallContext(ctx, result, method, args...)
	}
	if n.says != nil {
		err = n.says(err)
	}
	return err
}

// saidError is an error of a node.
type saidError struct {
	text string
	data any
}

func (e *saidError) Error() string  { return e.text }
func (e *saidError) ErrorCode() int { return -32000 }
func (e *saidError) ErrorData() any { return e.data }

// speaker is the code of a wallet that says yes in the block that it knew when it
// signed, see byRandom, and else reverts with some words.
func speaker(words string) []byte {
	b := bytes.Clone(byRandom)
	b = append(b, 0x60, byte(len(b)+3+5+3+2+4), 0x57)             // then jump
	b = append(b, 0x63, 0x16, 0x26, 0xba, 0x7e, 0x60, 0xe0, 0x1b) // the magic value
	b = append(b, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3, 0x5b)       // is returned
	b = append(b, 0x63, 0x08, 0xc3, 0x79, 0xa0, 0x60, 0xe0, 0x1b) // Error(string)
	b = append(b, 0x5f, 0x52, 0x60, 0x20, 0x60, 0x04, 0x52)       // with a text
	b = append(b, 0x60, byte(len(words)), 0x60, 0x24, 0x52, 0x7f) // of this length
	b = append(b, common.RightPadBytes([]byte(words), 32)...)     // and these words
	return append(b, 0x60, 0x44, 0x52, 0x60, 0x64, 0x5f, 0xfd)    // is reverted with
}

// TestWalletWordsAreNotTheNodes: the wallet of a payer reverts with what nodes say of
// transaction numbers. That is no reason to count a number as used, nor to send the
// payment again with others.
func TestWalletWordsAreNotTheNodes(t *testing.T) {
	bad := common.HexToAddress("0xbadbad0000000000000000000000000000000001")
	geth := func(err error) error { return err }
	withoutCode := func(err error) error { return &saidError{err.Error(), nil} }
	for name, tt := range map[string]struct {
		words string
		says  func(error) error
	}{
		"already known":          {"already known", geth},
		"already known, no code": {"already known", withoutCode},
		"already known, data and text": {"already known", func(err error) error {
			return &saidError{"already known", err.(interface{ ErrorData() any }).ErrorData()}
		}},
		"custom error":              {"custom error", func(error) error { return &saidError{"custom error", "0x82b42900"} }},
		"already known, text alone": {"already known", func(error) error { return &saidError{"already known", nil} }},
		"nonce too low":             {"nonce too low", geth},
		"nonce too low, no code":    {"nonce too low", withoutCode},
		"nonce too low, data and text": {"nonce too low", func(err error) error {
			return &saidError{"nonce too low", err.(interface{ ErrorData() any }).ErrorData()}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), func(g types.GenesisAlloc) {
				g[bad] = types.Account{Code: speaker(tt.words)}
				rich(bad)(g)
				allows(token, bad)(g)
			})
			f, logs := c.start("base-sepolia")
			sent := 0
			node := &preexecuting{keepOpen{c.client}, c.seal, func(err error) error {
				sent++
				return tt.says(err)
			}}
			rewire(f, 0, node)
			head := must(c.backend.Client().HeaderByNumber(context.Background(), nil))
			r, _ := c.permit(permitOrder{account: bad, change: func([]byte) []byte { return append(head.MixDigest.Bytes(), make([]byte, 64)...) }})
			verify(t, f, r)
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown || s.Reason != string(codeTransaction) || !strings.Contains(s.Detail, tt.words) {
				t.Errorf("the wallet's payment: %+v", s)
			}
			if sent != 1 {
				t.Errorf("it was sent %d times", sent)
			}
			a := f.chains[baseSepolia].accounts[0]
			if n := len(a.sender.flights); n != 0 || a.sender.hasRivals(c.now()) {
				t.Errorf("%d in flight, rivals %v", n, a.sender.hasRivals(c.now()))
			}
			for i := range byte(2) {
				begun := c.now()
				if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: i})); s.Outcome != facilitator.Settled || c.now().Sub(begun) >= stuckAfter {
					t.Errorf("an honest payment, after %s: %+v", c.now().Sub(begun), s)
				}
			}
			if c.transactions() != 2 {
				t.Errorf("%d transactions", c.transactions())
			}
			if text := logged(logs); strings.Contains(text, "key used elsewhere") || strings.Contains(text, "stuck") {
				t.Error(text)
			}
		})
	}
}

// TestAlreadyKnownIsShown: a node that says that it has a transaction has to show it.
func TestAlreadyKnownIsShown(t *testing.T) {
	for name, tt := range map[string]struct {
		has     bool
		failing bool // the node cannot be asked for it
		want    facilitator.Outcome
		flights int
	}{
		"it has":        {has: true, want: facilitator.Settled},
		"it has not":    {want: facilitator.Unknown},
		"nobody knows":  {failing: true, want: facilitator.Unknown, flights: 1},
		"it has, still": {has: true, failing: true, want: facilitator.Settled},
	} {
		t.Run(name, func(t *testing.T) {
			f, node, r, _ := at(t, world{})
			node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
				switch {
				case method == "eth_sendRawTransaction":
					if tt.has {
						_, _ = node.send(params[0])
					}
					return nil, &rpcError{Code: -32000, Message: "already known"}, true
				case method == "eth_getTransactionByHash" && tt.failing:
					return nil, &rpcError{Code: -32601, Message: "no"}, true
				}
				return nil, nil, false
			}
			node.clock.max = 8 // before a node is asked whether it knows the transaction
			s := f.Settle(context.Background(), r)
			if s.Outcome != tt.want || node.count("eth_sendRawTransaction") != 1 || node.count("eth_getTransactionByHash") != 1 {
				t.Errorf("%+v, asked %v", s, node.asked)
			}
			if n := len(f.chains[baseSepolia].accounts[0].sender.flights); n != tt.flights {
				t.Errorf("%d in flight, want %d", n, tt.flights)
			}
			node.set(func(n *scripted) { n.override = nil })
			if s := f.Settle(context.Background(), r); !tt.failing && (s.Outcome != facilitator.Settled || len(node.sent) != 1) {
				t.Errorf("afterwards: %+v, %d sent", s, len(node.sent))
			}
		})
	}
}
