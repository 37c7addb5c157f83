package evm

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func TestSightingsAreBounded(t *testing.T) {
	p := &newShared().payments
	now := time.Unix(1e9, 0)
	of := func(i int) claim { return claim{nonce: common.BigToHash(big.NewInt(int64(i)))} }
	for i := range 3 * maxSightings {
		p.sawUnused(of(i), uint64(i), now)
		if len(p.unused) > maxSightings {
			t.Fatalf("%d are kept", len(p.unused))
		}
	}
	last := of(3*maxSightings - 1)
	if block, ok := p.unusedSince(last, now); !ok || block != 3*maxSightings-1 {
		t.Error("the newest is forgotten")
	}
	if _, ok := p.unusedSince(last, now.Add(sightingLife)); ok {
		t.Error("an old one still counts")
	}
	p.sweep(now.Add(sightingLife))
	if len(p.unused) != 0 {
		t.Errorf("%d old ones are kept", len(p.unused))
	}
}

func TestRecordsAreForgotten(t *testing.T) {
	s := &newShared().payments
	now := time.Unix(1e9, 0)
	p := aPayment()
	p.Authorization.ValidBefore = now.Unix() + 300
	r, first := s.begin(p, now)
	if !first {
		t.Fatal("not the first")
	}
	later := now.Add(2*recordLife + 300*time.Second)
	if again, first := s.begin(p, later); first || again != r {
		t.Error("one that is being sent is forgotten")
	}
	s.finish(p, r, &flight{}, facilitator.Settlement{})
	if _, first := s.begin(p, later.Add(sweepEvery)); !first {
		t.Error("an old one is kept")
	}
}

// TestNodeDownAtSending: the node goes away between the look and the sending.
// Nothing was sent, unless the connection broke in the middle.
func TestNodeDownAtSending(t *testing.T) {
	for name, tt := range map[string]struct {
		status  int
		outcome facilitator.Outcome
		reason  x402.Code
	}{
		"too many requests": {http.StatusTooManyRequests, facilitator.Unsent, facilitator.CodeUnavailable},
		"bad gateway":       {http.StatusBadGateway, facilitator.Unknown, x402.CodeSettlementPending},
	} {
		t.Run(name, func(t *testing.T) {
			f, node, r, _ := at(t, world{})
			node.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if node.total() > 0 { // after the look
					w.WriteHeader(tt.status)
					return
				}
				node.ServeHTTP(w, req)
			})
			if s := f.Settle(context.Background(), r); s.Outcome != tt.outcome || s.Reason != string(tt.reason) {
				t.Errorf("%+v", s)
			}
			if n := len(f.chains[baseSepolia].accounts[0].sender.flights); (n == 1) != (tt.outcome == facilitator.Unknown) {
				t.Errorf("%d in flight", n)
			}
		})
	}
}

// TestOtherNodeTakesIt: the first node does not take the transaction, the second
// does.
func TestOtherNodeTakesIt(t *testing.T) {
	r, unix := good(t)
	c := newClock(unix)
	first, second := script(t, c, world{}), script(t, c, world{})
	first.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if first.total() > 0 {
			panic(http.ErrAbortHandler)
		}
		first.ServeHTTP(w, req)
	})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{first.URL, second.URL}}, c)
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(second.sent) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestMarket(t *testing.T) {
	n := big.NewInt
	tests := map[string]struct {
		base, tip, price *big.Int
		legacy           bool
		wantTip, wantCap int64
	}{
		"usual":                 {n(100), n(2), n(102), false, 2, 202},
		"no tip known":          {n(100), nil, n(105), false, 5, 205},
		"price below base":      {n(100), nil, n(90), false, 0, 200},
		"no base fee":           {nil, n(2), n(70), true, 70, 70},
		"nothing but base fee":  {n(100), nil, nil, false, 0, 200},
		"a chain without price": {n(0), n(0), n(0), false, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := market(tt.base, tt.tip, tt.price)
			if f.legacy != tt.legacy || f.tip.Int64() != tt.wantTip || f.feeCap.Int64() != tt.wantCap {
				t.Errorf("%+v", f)
			}
			higher := f.bumped(f)
			if higher.tip.Cmp(f.tip) <= 0 || higher.feeCap.Cmp(f.feeCap) <= 0 || higher.legacy != f.legacy {
				t.Errorf("bumped %+v", higher)
			}
			dear := fees{tip: n(1e6), feeCap: n(1e9)}
			if higher := f.bumped(dear); higher.tip.Int64() != 1e6 || higher.feeCap.Int64() != 1e9 {
				t.Errorf("below the market: %+v", higher)
			}
		})
	}
}

// TestLost: another transaction has taken our number, and the authorization is
// still unused. The next call sends it anew.
func TestLost(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	node.clock.max = 1000
	f.chains[baseSepolia].accounts[0].sender.flights = nil
	slept := 0
	f.chains[baseSepolia].sleep = func(ctx context.Context, d time.Duration) error {
		if slept++; slept == 3 {
			node.set(func(s *scripted) {
				s.nonce = 8 // a stranger's, with our key
				s.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
					return nil, nil, method == "eth_getTransactionByHash" // ours is dropped
				}
			})
		}
		return node.clock.sleep(ctx, d)
	}
	s := f.Settle(context.Background(), r)
	if s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) {
		t.Fatalf("%+v", s)
	}
	node.set(func(s *scripted) { s.world.ReceiptThrows = false })
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[len(node.sent)-1].Nonce() != 8 {
		t.Errorf("%+v", s)
	}
}

// TestSecondNodeProvesNothing: the first node breaks the connection, having
// taken the transaction or not. What the second one has against it is no proof
// that nothing was sent.
func TestSecondNodeProvesNothing(t *testing.T) {
	for _, says := range []string{"nonce too low", "insufficient funds for gas", "execution reverted"} {
		t.Run(says, func(t *testing.T) {
			r, unix := good(t)
			c := newClock(unix)
			first, second := script(t, c, world{}), script(t, c, world{WriteError: says})
			first.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if first.total() > 0 {
					panic(http.ErrAbortHandler)
				}
				first.ServeHTTP(w, req)
			})
			f, _ := start(t, baseSepolia, &Network{RPC: []string{first.URL, second.URL}}, c)
			s := f.Settle(context.Background(), r)
			if s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) || s.Transaction == "" {
				t.Errorf("%+v", s)
			}
			if n := second.count("eth_sendRawTransaction"); n != 1 {
				t.Errorf("the second node was asked %d times", n)
			}
		})
	}
}
