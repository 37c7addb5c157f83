package settlement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const watchedNetwork = "eip155:8453"

// fork is a chain whose answers are told, and a facilitator on it.
type fork struct {
	facilitator.Facilitator // nobody asks for the rest

	mu      sync.Mutex
	has     map[facilitator.Block]any // bool or error; unknown blocks are there
	proof   facilitator.Proof
	silent  error // of the witness
	settles facilitator.Settlement
	looks   int // at blocks
	seeks   int
	asked   []facilitator.Request
}

func (f *fork) Sees(network string) bool { return network == watchedNetwork }

func (f *fork) HasBlock(_ context.Context, _ string, b facilitator.Block) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	switch said := f.has[b].(type) {
	case error:
		return false, said
	case bool:
		return said, nil
	}
	return true, nil
}

func (f *fork) Witness(context.Context, facilitator.Request, time.Time) (facilitator.Proof, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seeks++
	return f.proof, f.silent
}

func (f *fork) Settle(_ context.Context, r facilitator.Request) facilitator.Settlement {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r)
	return f.settles
}

// outlook is a reorgWatch in a world that is told.
type outlook struct {
	*reorgWatch
	t     *testing.T
	chain *fork
	time  time.Time
	logs  *observer.ObservedLogs
	book  *memory.Ledger
	start map[string]float64 // of the metric
	other bool               // the network is another chain
}

func newOutlook(t *testing.T) *outlook {
	core, logs := observer.New(zapcore.DebugLevel)
	o := &outlook{t: t, chain: &fork{has: map[facilitator.Block]any{}}, time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), logs: logs}
	now := func() time.Time { return o.time }
	o.book = memory.New(memory.Options{Now: now})
	o.reorgWatch = &reorgWatch{
		watch: NewBlocks(), ledger: ledger.Guard(o.book), admission: admission.New(), now: now, logger: zap.New(core),
		facilitator: func(name string) (facilitator.Named, bool) {
			return facilitator.Named{Name: name, Facilitator: o.chain}, name == "own"
		},
		blocks:    func(string) []facilitator.Blocks { return []facilitator.Blocks{o.chain} },
		witnesses: func(string) []facilitator.Witness { return []facilitator.Witness{o.chain} },
		closed:    func(string) bool { return o.other },
	}
	o.start = o.counts()
	o.chain.settles.Outcome = facilitator.Refused
	return o
}

// counts is the metric.
func (o *outlook) counts() map[string]float64 {
	o.t.Helper()
	registry := prometheus.NewRegistry()
	none := func() *metrics.Count { return nil }
	now := metrics.Gauges{
		Facilitators: func(func(*facilitator.Memory) bool) {}, Unsettled: func() int { return 0 }, InDoubt: none, Owed: none,
		LedgerUp: func() (bool, bool) { return true, true }, ClockAhead: func() time.Duration { return 0 },
	}
	if err := metrics.Register(registry, now); err != nil {
		o.t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		o.t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "caddy_paywall_reorganised_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			all[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return all
}

// pass lets time pass, and looks at what is due.
func (o *outlook) pass(d time.Duration) {
	o.t.Helper()
	o.time = o.time.Add(d)
	for network, list := range o.watch.due(o.time) {
		o.lookAt(o.t.Context(), network, list)
	}
}

// sold is a payment of a payer that is settled in a block, in some state.
func (o *outlook) sold(key ledger.Key, to ledger.State, b facilitator.Block) ledger.Payment {
	o.t.Helper()
	raw := jsontext.Value(`{"x402Version":2}`)
	request, err := json.Marshal(facilitator.Request{
		Payment:     &x402.Payment{Version: 2, Raw: raw, Payload: raw},
		Requirement: x402.Requirement{Scheme: "exact", Network: watchedNetwork, Amount: "10000"},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	c, err := o.book.Claim(o.t.Context(), ledger.Payment{
		Key: key, Network: watchedNetwork, Payer: "payer of " + string(key), Amount: "10000", Facilitator: "own", ValidBefore: o.time.Add(5 * time.Minute),
	}, ledger.LeaseFor)
	if err != nil {
		o.t.Fatal(err)
	}
	var row ledger.Payment
	for _, ch := range []ledger.Change{
		{To: ledger.Settling, Request: request}, {To: ledger.Settled, Transaction: "0xold"}, {To: ledger.Delivering}, {To: to},
	} {
		if row, err = o.book.Move(o.t.Context(), c, ch); err != nil {
			o.t.Fatal(err)
		}
	}
	o.watch.add(watchedNetwork, b, watched{key: key, facilitator: "own", request: request}, o.time, o.logger)
	return row
}

func (o *outlook) want(key ledger.Key, state ledger.State, reason, transaction string) {
	o.t.Helper()
	row, err := o.book.Get(o.t.Context(), key)
	if err != nil || row.State != state || row.Reason != reason || row.Transaction != transaction {
		o.t.Errorf("%s is %s, %q, %s, %v; want %s, %q, %s", key, row.State, row.Reason, row.Transaction, err, state, reason, transaction)
	}
}

// wantCounted compares what the metric has counted, in words.
func (o *outlook) wantCounted(want string) {
	o.t.Helper()
	var words []string
	for outcome, n := range o.counts() {
		for range int(n - o.start[outcome]) {
			words = append(words, outcome)
		}
	}
	slices.Sort(words)
	if got := strings.Join(words, " "); got != want {
		o.t.Errorf("counted %q, want %q", got, want)
	}
}

// wantNothingLeft tests that nothing is watched any more.
func (o *outlook) wantNothingLeft() {
	o.t.Helper()
	if w := o.watch; w.count != 0 || len(w.blocks) != 0 || len(w.busy) != 0 {
		o.t.Errorf("%d payments in %d blocks are watched, %v busy", w.count, len(w.blocks), w.busy)
	}
}

var blockA, blockB, blockC = facilitator.Block{Number: 7, Hash: "0xa"}, facilitator.Block{Number: 7, Hash: "0xb"}, facilitator.Block{Number: 9, Hash: "0xc"}

// One call a block, however many payments are in it, and a few in all.
func TestReorganisationsLooksAFewTimes(t *testing.T) {
	o := newOutlook(t)
	for i := range 100 {
		o.sold(ledger.Key(fmt.Sprint(i)), ledger.Delivered, blockA)
	}
	last := time.Duration(0)
	for i, at := range lookAfter {
		o.pass(at - last - time.Millisecond)
		if o.chain.looks != i {
			t.Fatalf("%d looks before %s", o.chain.looks, at)
		}
		o.pass(time.Millisecond)
		if o.chain.looks != i+1 {
			t.Fatalf("%d looks after %s", o.chain.looks, at)
		}
		last = at
	}
	o.pass(time.Hour)
	o.wantNothingLeft()
	if o.chain.looks != len(lookAfter) || o.chain.seeks != 0 || len(o.chain.asked) != 0 {
		t.Errorf("%d looks, %d seeks, %d asked", o.chain.looks, o.chain.seeks, len(o.chain.asked))
	}
	o.wantCounted("")
}

// What cannot be told is looked at again, and not for ever. The word of another
// chain is worth nothing.
func TestReorganisationsIsPatient(t *testing.T) {
	o := newOutlook(t)
	o.sold("k", ledger.Delivered, blockA)
	o.chain.has[blockA] = errors.New("the node does not know block 7")
	for range 3 {
		o.pass(lookAfter[0])
	}
	o.chain.has[blockA], o.other = false, true
	o.pass(lookAgain)
	if o.chain.looks != 3 || o.chain.seeks != 0 {
		t.Errorf("%d looks, %d seeks", o.chain.looks, o.chain.seeks)
	}
	o.want("k", ledger.Delivered, "", "0xold")
	for range int(watchFor / lookAgain) {
		o.pass(lookAgain)
	}
	o.wantNothingLeft()
}

// A payment that is in another block is watched there.
func TestReorganisationsFollows(t *testing.T) {
	for _, state := range []ledger.State{ledger.Delivered, ledger.Settled} {
		o := newOutlook(t)
		row := o.sold("k", state, blockA)
		o.chain.has[blockA] = false
		o.chain.proof = facilitator.Proof{Evidence: facilitator.Moved, Transaction: "0xold", Block: blockB}
		o.pass(lookAfter[0])
		o.want("k", state, "", "0xold")
		o.wantCounted("moved")
		if o.admission.Distrusted.Has(row.Payer, o.time) || len(o.chain.asked) != 0 {
			t.Error("the payer has paid")
		}
		o.chain.has[blockB] = false
		o.chain.proof = facilitator.Proof{Evidence: facilitator.Moved, Transaction: "0xnew", Block: blockC}
		o.pass(lookAfter[0])
		o.want("k", state, "", "0xnew")
		for range lookAfter {
			o.pass(lookAfter[len(lookAfter)-1])
		}
		o.wantNothingLeft()
		o.wantCounted("moved moved")
	}
}

// What was delivered stays so, says that its money is gone, and is asked for again
// in the same words, until it is back.
func TestReorganisationsAfterDelivery(t *testing.T) {
	o := newOutlook(t)
	row := o.sold("k", ledger.Delivered, blockA)
	o.admission.Trusted.Add(row.Payer, o.time)
	o.chain.has[blockA] = false
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.wantCounted("reverted")
	if !o.admission.Distrusted.Has(row.Payer, o.time) || o.admission.Trusted.Has(row.Payer, o.time) {
		t.Error("the payer does not pay first")
	}
	if lines := o.logs.FilterLevelExact(zapcore.ErrorLevel).All(); len(lines) != 1 ||
		lines[0].ContextMap()["payment"] != row.ID || lines[0].ContextMap()["transaction"] != "0xold" || lines[0].ContextMap()["network"] != watchedNetwork {
		t.Errorf("%+v", lines)
	}
	o.pass(lookAfter[0])
	if len(o.chain.asked) != 2 || o.chain.asked[0].Requirement.Amount != "10000" || o.chain.asked[0].Payment == nil {
		t.Fatalf("asked %+v", o.chain.asked)
	}
	o.chain.settles = facilitator.Settlement{Outcome: facilitator.Settled, Transaction: "0xold"} // says one who has not looked
	o.pass(lookAfter[1] - lookAfter[0])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.chain.settles = facilitator.Settlement{Outcome: facilitator.Settled, Transaction: "0xnew", Block: blockB}
	o.pass(lookAfter[2])
	o.want("k", ledger.Delivered, "", "0xnew")
	o.wantCounted("restored reverted")
	if o.chain.looks != 1 {
		t.Errorf("%d looks at a block that is gone", o.chain.looks)
	}
	if o.watch.count != 1 || o.watch.blocks[blockOf{watchedNetwork, blockB}] == nil {
		t.Error("the new block is not watched")
	}
	// Once more.
	o.chain.has[blockB] = false
	o.chain.settles = facilitator.Settlement{Outcome: facilitator.Refused}
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xnew")
}

// Nobody is asked for money that can no longer move, but the chain is looked at:
// it may have been on its way. A chain that says that it never will ends it.
func TestReorganisationsAfterTheEnd(t *testing.T) {
	o := newOutlook(t)
	o.sold("late", ledger.Delivered, blockA)
	o.pass(lookAfter[3]) // the authorization has ended
	o.chain.has[blockA] = false
	o.pass(lookAfter[4] - lookAfter[3])
	o.want("late", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.chain.proof = facilitator.Proof{Evidence: facilitator.Moved, Transaction: "0xnew", Block: blockB}
	o.pass(lookAfter[0])
	o.want("late", ledger.Delivered, "", "0xnew")
	if len(o.chain.asked) != 0 {
		t.Error("asked")
	}

	o = newOutlook(t)
	o.sold("void", ledger.Delivered, blockA)
	o.chain.has[blockA], o.chain.proof = false, facilitator.Proof{Evidence: facilitator.Void}
	o.pass(lookAfter[0])
	o.want("void", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.wantNothingLeft()
	if len(o.chain.asked) != 0 {
		t.Error("asked")
	}
}

// Goods that are owed do not go out for money that is gone: the reconciler settles
// it again.
func TestReorganisationsBeforeDelivery(t *testing.T) {
	o := newOutlook(t)
	o.sold("owed", ledger.Settled, blockA)
	o.sold("broken off", ledger.Delivering, blockA)
	o.chain.has[blockA] = false
	o.time = o.time.Add(ledger.LeaseFor)
	o.pass(0)
	for _, key := range []ledger.Key{"owed", "broken off"} {
		o.want(key, ledger.Unknown, "", "0xold")
		if row, _ := o.book.Get(t.Context(), key); !row.Doubt || len(row.Request) == 0 {
			t.Errorf("%+v", row)
		}
	}
	o.wantNothingLeft()
	o.wantCounted("reverted reverted")
	if len(o.chain.asked) != 0 {
		t.Error("asked beside the reconciler")
	}
}

// Who is delivering is not stopped; the row says so when it is delivered.
func TestReorganisationsWhileDelivering(t *testing.T) {
	o := newOutlook(t)
	o.sold("k", ledger.Settled, blockA)
	c, err := o.book.Take(t.Context(), "k", ledger.Delivering, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.chain.has[blockA] = false
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivering, "", "0xold")
	if len(o.chain.asked) != 1 {
		t.Errorf("asked %d times", len(o.chain.asked))
	}
	if _, err := o.book.Move(t.Context(), c, ledger.Change{To: ledger.Delivered}); err != nil {
		t.Fatal(err)
	}
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.wantCounted("reverted")
}

// While nobody can tell, and while the ledger fails, nothing is decided.
func TestReorganisationsFailures(t *testing.T) {
	o := newOutlook(t)
	o.sold("k", ledger.Delivered, blockA)
	o.chain.has[blockA] = false
	o.chain.silent = errors.New("no node answers")
	o.pass(lookAfter[0])
	o.wantCounted("")
	o.chain.silent = nil
	o.ledger = ledger.Guard(broken{o.book})
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, "", "0xold")
	o.ledger = ledger.Guard(panics{})
	o.pass(lookAfter[1])
	o.ledger = ledger.Guard(o.book)
	o.pass(lookAfter[2])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.wantCounted("reverted")
	o.pass(watchFor)
	o.wantNothingLeft()

	// Of another ledger, or decided by others.
	o.watch.add(watchedNetwork, blockA, watched{key: "unknown"}, o.time, o.logger)
	o.watch.add(watchedNetwork, facilitator.Block{}, watched{key: "nowhere"}, o.time, o.logger)
	o.pass(lookAfter[0])
	o.wantNothingLeft()
}

// broken is a ledger that writes nothing, and panics one that fails altogether.
type (
	broken struct{ ledger.Ledger }
	panics struct{ ledger.Ledger }
)

func (broken) Take(context.Context, ledger.Key, ledger.State, time.Duration) (ledger.Claim, error) {
	return ledger.Claim{}, ledger.ErrUnavailable
}

// A block that is back is looked at like a new one.
func TestReorganisationsBackAgain(t *testing.T) {
	o := newOutlook(t)
	o.sold("k", ledger.Delivered, blockA)
	o.chain.has[blockA] = false
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, ledger.ReasonReverted, "0xold")
	o.chain.has[blockA] = true
	o.chain.proof = facilitator.Proof{Evidence: facilitator.Moved, Transaction: "0xold", Block: blockA}
	o.pass(lookAfter[0])
	o.want("k", ledger.Delivered, "", "0xold")
	o.pass(lookAfter[0])
	if o.chain.looks != 2 || o.watch.count != 1 {
		t.Errorf("%d looks, %d watched", o.chain.looks, o.watch.count)
	}
	for range lookAfter {
		o.pass(lookAfter[len(lookAfter)-1])
	}
	o.wantNothingLeft()
	o.wantCounted("restored reverted")
}

// What is watched is bounded, and beyond that it is said, once.
func TestReorganisationsIsBounded(t *testing.T) {
	o := newOutlook(t)
	add := func(n int) {
		for i := range n {
			o.watch.add(watchedNetwork, facilitator.Block{Number: uint64(i % 50), Hash: "0x"}, watched{key: "k"}, o.time, o.logger)
		}
	}
	said := func() int { return o.logs.FilterMessageSnippet("too many payments").Len() }
	add(mostWatched)
	if said() != 0 {
		t.Error("too early")
	}
	add(100)
	if o.watch.count != mostWatched || said() != 1 {
		t.Errorf("%d watched, said %d times", o.watch.count, said())
	}
	for range lookAfter {
		o.pass(lookAfter[len(lookAfter)-1])
	}
	o.wantNothingLeft()
	add(mostWatched + 1)
	if said() != 2 {
		t.Errorf("said %d times", said())
	}
}

// Of two configs during a reload, one looks at a network at a time.
func TestReorganisationsTakesTurns(t *testing.T) {
	o := newOutlook(t)
	o.sold("k", ledger.Delivered, blockA)
	o.time = o.time.Add(lookAfter[0])
	first := o.watch.due(o.time)
	if len(first[watchedNetwork]) != 1 || len(o.watch.due(o.time)) != 0 {
		t.Fatal("both look")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	o.lookAt(ended, watchedNetwork, first[watchedNetwork]) // the older config ends
	o.pass(0)
	if o.chain.looks != 1 || o.watch.count != 1 {
		t.Errorf("%d looks, %d watched", o.chain.looks, o.watch.count)
	}
}
