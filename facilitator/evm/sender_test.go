package evm

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// good is the first payment of the vectors, and when it was made.
func good(t testing.TB) (facilitator.Request, int64) {
	t.Helper()
	file := vectors(t)
	r := file.Verify[0]
	return request(t, r.PaymentPayload, r.PaymentRequirements.Requirement), file.Clock
}

// at makes a scripted node, and a facilitator that asks it.
func at(t testing.TB, w world) (*Facilitator, *scripted, facilitator.Request, func() string) {
	t.Helper()
	r, unix := good(t)
	c := newClock(unix)
	node := script(t, c, w)
	f, logs := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c)
	return f, node, r, func() string { return logged(logs) }
}

func TestBroadcastErrors(t *testing.T) {
	tests := map[string]struct {
		says    string
		outcome facilitator.Outcome
		reason  x402.Code
		log     string
		tries   int
	}{
		"no gas after all":     {"insufficient funds for gas * price + value: balance 1", facilitator.Unsent, facilitator.CodeUnavailable, "send it some of the chain's own coin", 1},
		"fees too low":         {"max fee per gas less than block base fee", facilitator.Unsent, facilitator.CodeUnavailable, "a payment could not be sent", 1},
		"pool full":            {"txpool is full", facilitator.Unsent, facilitator.CodeUnavailable, "a payment could not be sent", 1},
		"rate limited":         {"over rate limit", facilitator.Unsent, facilitator.CodeUnavailable, "a payment could not be sent", 1},
		"a node's policy":      {"transaction rejected by policy", facilitator.Unknown, codeTransaction, "", 1},
		"numbers all taken":    {"nonce too low: next nonce 99", facilitator.Unsent, facilitator.CodeUnavailable, "is the key used elsewhere", numberTries},
		"would be replacement": {"replacement transaction underpriced", facilitator.Unsent, facilitator.CodeUnavailable, "is the key used elsewhere", numberTries},
		"reverts":              {"execution reverted: ERC20: transfer amount exceeds balance", facilitator.Unknown, codeTransaction, "", 1},
		"a wallet's own words": {"execution reverted: nonce too low", facilitator.Unknown, codeTransaction, "", 1},
		"used":                 {"execution reverted: FiatTokenV2: authorization is used or canceled", facilitator.Unknown, chain.CodeNonceUsed, "", 1},
		"unheard of":           {"the sequencer is on holiday", facilitator.Unknown, x402.CodeSettlementPending, "", 1},
		"internal error":       {"internal error", facilitator.Unknown, x402.CodeSettlementPending, "", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, node, r, log := at(t, world{WriteError: tt.says})
			s := f.Settle(context.Background(), r)
			if s.Outcome != tt.outcome || s.Reason != string(tt.reason) {
				t.Errorf("%+v", s)
			}
			if n := node.count("eth_sendRawTransaction"); n != tt.tries {
				t.Errorf("sent %d times, want %d", n, tt.tries)
			}
			if text := log(); !strings.Contains(text, tt.log) {
				t.Errorf("log: %s", text)
			}
			if tt.outcome == facilitator.Unsent && s.Transaction != "" {
				t.Errorf("nothing was sent, and yet there is %s", s.Transaction)
			}
			if tt.reason == x402.CodeSettlementPending {
				return
			}
			// Whatever it was, the next call tries anew, with the same number.
			node.set(func(n *scripted) { n.world.WriteError = "" })
			if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].Nonce() != 7 {
				t.Errorf("afterwards: %+v", s)
			}
		})
	}
}

func TestAlreadyKnownIsTaken(t *testing.T) {
	f, node, r, _ := at(t, world{})
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method != "eth_sendRawTransaction" {
			return nil, nil, false
		}
		_, _ = node.send(params[0])
		return nil, &rpcError{Code: -32000, Message: "already known"}, true
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(node.sent) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestNumberTaken: the key is used elsewhere too, so a number is gone, or many are.
func TestNumberTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		used uint64 // by others, meanwhile
		want uint64
	}{
		"one":                            {1, 8},
		"more than there would be tries": {3 * numberTries, 7 + 3*numberTries},
		"none, as the node says, too":    {0, 7},
	} {
		t.Run(name, func(t *testing.T) {
			f, node, r, _ := at(t, world{})
			refused := false
			node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				if method != "eth_sendRawTransaction" || refused {
					return nil, nil, false
				}
				refused = true
				node.nonce += tt.used
				return nil, &rpcError{Code: -32000, Message: "nonce too low"}, true
			}
			if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].Nonce() != tt.want {
				t.Errorf("%+v, number %d", s, node.sent[0].Nonce())
			}
		})
	}
}

// TestAnswerLost: the node takes the transaction, and its answer is lost. The
// repeat does not send a second one.
func TestAnswerLost(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	node.Config.Handler = lossy(node)
	s := f.Settle(context.Background(), r)
	if s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) || s.Transaction != node.sent[0].Hash().Hex() {
		t.Fatalf("%+v", s)
	}
	node.set(func(n *scripted) { n.world.ReceiptThrows = false })
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(node.sent) != 1 {
		t.Errorf("%+v, %d sent", s, len(node.sent))
	}
}

// lossy is the node with a connection that breaks after the first transaction.
func lossy(node *scripted) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		before := node.count("eth_sendRawTransaction")
		recorder := &discard{ResponseWriter: w}
		node.ServeHTTP(recorder, req)
		if node.count("eth_sendRawTransaction") > before {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(recorder.body)
	})
}

// discard keeps an answer back.
type discard struct {
	http.ResponseWriter
	body []byte
}

func (d *discard) Write(p []byte) (int, error) {
	d.body = append(d.body, p...)
	return len(p), nil
}

// TestStuck: no block takes the transaction, until it offers more.
func TestStuck(t *testing.T) {
	f, node, r, log := at(t, world{ReceiptThrows: true})
	node.clock.max = 1000
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_sendRawTransaction" && len(node.sent) == 2 {
			node.world.ReceiptThrows = false
		}
		return nil, nil, false
	}
	s := f.Settle(context.Background(), r)
	if s.Outcome != facilitator.Settled || len(node.sent) != 3 {
		t.Fatalf("%+v, %d sent", s, len(node.sent))
	}
	for i, tx := range node.sent {
		if tx.Nonce() != 7 || hexutil.Encode(tx.Data()) != hexutil.Encode(node.sent[0].Data()) {
			t.Errorf("%d: another number or call", i)
		}
		if i == 0 {
			continue
		}
		for what, f := range map[string]func(int) *big.Int{
			"tip": func(i int) *big.Int { return node.sent[i].GasTipCap() },
			"cap": func(i int) *big.Int { return node.sent[i].GasFeeCap() },
		} {
			if least := quarterMore(f(i - 1)); f(i).Cmp(least) < 0 {
				t.Errorf("%d: %s %s, want at least %s", i, what, f(i), least)
			}
		}
	}
	if !strings.Contains(log(), "sent again for a higher fee") {
		t.Errorf("log: %s", log())
	}
}

// TestNumberIsUsedUp: no node takes the transfer again, for example because the
// authorization has ended. The number is used up by another transaction, so that
// later payments go on.
func TestNumberIsUsedUp(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	node.clock.max = 1000
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		var b hexutil.Bytes
		if method == "eth_sendRawTransaction" && len(node.sent) == 1 {
			_ = json.Unmarshal(params[0], &b)
			if len(b) > 250 { // the transfer
				return nil, &rpcError{Code: -32000, Message: "execution reverted: authorization is expired"}, true
			}
			node.nonce = 8
		}
		return nil, nil, false
	}
	s := f.Settle(context.Background(), r)
	if s.Outcome != facilitator.Unknown || len(node.sent) != 2 {
		t.Fatalf("%+v, %d sent", s, len(node.sent))
	}
	if filler := node.sent[1]; filler.Nonce() != 7 || len(filler.Data()) != 0 || filler.To().Hex() != signerAddress || filler.Value().Sign() != 0 {
		t.Errorf("the filler is %+v", filler)
	}
	if n := len(f.chains[baseSepolia].accounts[0].sender.flights); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// TestForgottenNumbers: the node counts fewer transactions than we do. At first
// it lags; after a minute the chain has forgotten them.
func TestForgottenNumbers(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &sender{next: 9, lastSent: now}
	if n := s.nextNumber(5, now.Add(time.Second)); n != 9 {
		t.Errorf("%d after a second", n)
	}
	if n := s.nextNumber(5, now.Add(2*time.Minute)); n != 5 {
		t.Errorf("%d after two minutes", n)
	}
	if n := s.nextNumber(12, now); n != 12 {
		t.Errorf("%d, though others have used up to 12", n)
	}
	s.took(&flight{number: 12}, now)
	if n := s.nextNumber(12, now); n != 13 {
		t.Errorf("%d after 12 was used", n)
	}
	s.next, s.flights = 9, []*flight{{number: 8}}
	if n := s.nextNumber(5, now.Add(2*time.Minute)); n != 9 {
		t.Errorf("%d with one in flight", n)
	}
}

func TestFees(t *testing.T) {
	f, node, r, log := at(t, world{})
	node.price = 4e18
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unsent || !strings.Contains(log(), "more than one whole coin") {
		t.Errorf("%+v", s)
	}
	node.price = 1e9
	node.balance = big.NewInt(transferGas*3e9 - 1) // twice the base fee and the tip
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unsent || node.count("eth_sendRawTransaction") != 0 {
		t.Errorf("with too little: %+v", s)
	}
	node.balance = big.NewInt(transferGas * 3e9)
	node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
		switch method {
		case "eth_getBlockByNumber":
			return map[string]any{"number": "0x64", "timestamp": hexutil.Uint64(node.clock.now().Unix())}, nil, true
		case "eth_maxPriorityFeePerGas":
			return nil, &rpcError{Code: -32601, Message: "the method does not exist/is not available"}, true
		}
		return nil, nil, false
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].Type() != 0 || node.sent[0].GasPrice().Int64() != 1e9 {
		t.Errorf("on a chain without base fee: %+v", s)
	}
}

// TestBusy: there is no room for the payment in its time. Nothing was sent.
func TestBusy(t *testing.T) {
	f, node, r, _ := at(t, world{})
	c := f.chains[baseSepolia]
	places := occupy(c.shared.queue, c.accounts, maxInFlight)
	if s := f.Settle(during(t, 50*time.Millisecond), r); s.Outcome != facilitator.Unsent || node.total() != 0 {
		t.Errorf("%+v", s)
	}
	places[0].landed()
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// TestANumberThatIsFreeIsTriedAgain: the one node says many times that a number is used,
// and yet that it is the next one. No numbers before it are left to be filled.
func TestANumberThatIsFreeIsTriedAgain(t *testing.T) {
	f, node, r, _ := at(t, world{})
	refused := 0
	node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_sendRawTransaction" && refused < numberTries-1 {
			refused++
			return nil, &rpcError{Code: -32000, Message: "nonce too low"}, true
		}
		return nil, nil, false
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(node.sent) != 1 || node.sent[0].Nonce() != 7 {
		t.Errorf("%+v, %d sent, number %d", s, len(node.sent), node.sent[0].Nonce())
	}
}
