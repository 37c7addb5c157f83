package facilitator

import (
	"context"
	"errors"
	"math/big"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// onScheme is a request for a payment of one scheme.
func onScheme(network, scheme string) Request {
	r := onNetwork(network)
	r.Requirement.Scheme = scheme
	return r
}

// TestEmptyAccountsClose: what the accounts cannot pay for is left alone, and nothing
// else; whoever asks next has another facilitator asked. Only the accounts open it.
func TestEmptyAccountsClose(t *testing.T) {
	b := &Breaker{}
	b.saw("eip155:1", Funds{Empty: []string{"upto"}}, time.Now())
	b.saw("eip155:2", Funds{}, time.Now())
	isClosed := func(network, scheme string) bool {
		wait, open := b.Open(network, scheme, time.Now())
		if open && wait != emptyWait {
			t.Errorf("a payer is told %s", wait)
		}
		return open
	}
	if !isClosed("eip155:1", "upto") || isClosed("eip155:1", "exact") || isClosed("eip155:2", "upto") || b.Networks() != 1 {
		t.Errorf("%d networks are closed", b.Networks())
	}
	empty := &scripted{verdicts: []any{Verdict{Valid: true}}, settlements: []any{
		Settlement{Outcome: Unsent}, Settlement{Outcome: Unsent}, Settlement{Outcome: Unsent}, Settlement{Outcome: Settled, Transaction: "0x1"},
	}}
	other := &scripted{verdicts: []any{Verdict{Valid: true}, Verdict{Valid: true}}}
	both := []Named{{Name: "empty", Facilitator: empty, Breaker: b}, {Name: "other", Facilitator: other, Breaker: &Breaker{}}}
	r := onScheme("eip155:1", "upto")
	if v, name, err := Verify(t.Context(), both, r); !v.Valid || name != "other" || err != nil {
		t.Errorf("%+v %q %v", v, name, err)
	}
	_, _, err := Verify(t.Context(), both[:1], r)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeUnavailable || e.RetryAfter != emptyWait || !errors.Is(err, errEmpty) {
		t.Errorf("%v", err)
	}
	if empty.calls != 0 {
		t.Error("it was asked to verify what it cannot settle")
	}
	// What is to be settled may have been sent before. That it cannot be says nothing
	// about other payments.
	for range breakAfter {
		if s, _ := Settle(t.Context(), both[:1], r); s.Outcome != Unsent {
			t.Errorf("%+v", s)
		}
	}
	if s, _ := Settle(t.Context(), both[:1], r); s.Outcome != Settled {
		t.Errorf("%+v", s)
	}
	if isClosed("eip155:1", "exact") {
		t.Error("payments of another scheme are refused")
	}
	b.probed(nil, time.Now().Add(time.Hour))
	b.answered("eip155:1")
	if !isClosed("eip155:1", "upto") {
		t.Error("a good answer fills no account")
	}
	b.saw("eip155:1", Funds{}, time.Now())
	if isClosed("eip155:1", "upto") || b.Networks() != 0 {
		t.Error("closed, though it is filled up")
	}
}

// TestNetworkIsCountedOnce that is closed for two reasons.
func TestNetworkIsCountedOnce(t *testing.T) {
	b := &Breaker{}
	b.saw("eip155:1", Funds{Empty: []string{"exact"}}, time.Now())
	for range breakAfter {
		b.noAnswer("eip155:1", time.Now(), 0)
	}
	if n := b.Networks(); n != 1 {
		t.Errorf("%d", n)
	}
}

// funded says what it has, and what else it is told to.
type funded struct {
	scripted
	watch func(ctx context.Context, saw func(string, Funds))
}

func (f *funded) WatchFunds(ctx context.Context, saw func(string, Funds)) { f.watch(ctx, saw) }

// TestWatchFundsSurvivesAPanic of a facilitator, which then says nothing any more.
func TestWatchFundsSurvivesAPanic(t *testing.T) {
	core, logs := observer.New(zapcore.ErrorLevel)
	b := &Breaker{}
	said := make(chan bool, 1)
	f := &funded{watch: func(_ context.Context, saw func(string, Funds)) {
		saw("n", Funds{Empty: []string{"exact"}})
		_, open := b.Open("n", "exact", time.Now())
		said <- open
		panic("oops")
	}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.watchFunds(ctx, Named{Name: "a", Facilitator: f}, zap.New(core))
	}()
	if !<-said {
		t.Error("not closed")
	}
	for logs.Len() == 0 || isOpen(b, "n") {
		time.Sleep(time.Millisecond)
	}
	stop()
	<-ended
}

// TestPriceBelowItsCostIsTold: once an hour, while what a settlement costs is worth more
// than the cheapest price.
func TestPriceBelowItsCostIsTold(t *testing.T) {
	const network = "eip155:8453"
	core, logs := observer.New(zapcore.WarnLevel)
	costs := []*big.Int{nil, big.NewInt(999), big.NewInt(1000), big.NewInt(1001), big.NewInt(1002), nil, big.NewInt(1)}
	told := []int{0, 0, 0, 1, 1, 1, 1}
	set, known := NewSet(), &Memory{Name: "own"}
	m := set.Add(&funded{}, known, zap.NewNop())
	m.Sells(network, Sale{Line: "price /dear $0.01", Micros: big.NewInt(10_000)})
	m.Sells(network, Sale{Line: "price /cheap $0.001", Micros: big.NewInt(1000)})
	m.Sells("eip155:1", Sale{Line: "price /elsewhere $0.0001", Micros: big.NewInt(100)})
	known.Breaker.sells(m.cheapest)
	watch := func(_ context.Context, saw func(string, Funds)) {
		for i, cost := range costs {
			saw(network, Funds{CostMicros: cost})
			below := known.Breaker.BelowCost()
			if len(below) > 1 || cost == nil && len(below) > 0 || cost != nil && below[network] != (cost.Int64() > 1000) {
				t.Errorf("cost %s: %v", cost, below)
			}
			if logs.Len() != told[i] {
				t.Errorf("cost %s: told %d times", cost, logs.Len())
			}
		}
	}
	if err := known.Breaker.watchOnce(t.Context(), &funded{watch: watch}, zap.New(core)); err != nil {
		t.Fatal(err)
	}
	said := logs.All()[0].ContextMap()
	if said["line"] != "price /cheap $0.001" || said["price"] != "$0.001" || said["cost"] != "$0.001001" || said["network"] != network {
		t.Errorf("%v", said)
	}
	if known.Breaker.saw(network, Funds{CostMicros: big.NewInt(2000)}, time.Now().Add(costNoticeEvery+time.Minute)) == nil {
		t.Error("it is not told again")
	}
	known.Breaker.sells(m.cheapest) // a reload
	if known.Breaker.saw(network, Funds{CostMicros: big.NewInt(2000)}, time.Now()) == nil {
		t.Error("a new config is not told")
	}
}
