package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/ledgertest"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
)

const lease = 30 * time.Second

// TestSuccessorKeepsTheContract for what is sold now, and for what is in the ledger before.
func TestSuccessorKeepsTheContract(t *testing.T) {
	t.Run("current", func(t *testing.T) {
		ledgertest.Run(t, func(_ *testing.T, now func() time.Time) ledger.Ledger {
			o := memory.Options{Now: now}
			return ledger.WithFormer(memory.New(o), zap.NewNop(), memory.New(o), memory.New(o))
		})
	})
	t.Run("former", func(t *testing.T) {
		ledgertest.Run(t, func(_ *testing.T, now func() time.Time) ledger.Ledger {
			o := memory.Options{Now: now}
			old := memory.New(o)
			return soldBefore{ledger.WithFormer(memory.New(o), zap.NewNop(), old), old}
		})
	})
}

// soldBefore sells in the former ledger, and does all else through the successor.
type soldBefore struct {
	*ledger.Successor
	old ledger.Ledger
}

func (s soldBefore) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	c, err := s.old.Claim(ctx, p, lease)
	if err == nil {
		c.Token = "1 " + c.Token // as Take gives it
	}
	return c, err
}

// way leads to a state from a fresh claim.
var way = map[ledger.State][]ledger.State{
	ledger.Claimed:    {},
	ledger.Settling:   {ledger.Settling},
	ledger.Settled:    {ledger.Settling, ledger.Settled},
	ledger.Delivering: {ledger.Settling, ledger.Settled, ledger.Delivering},
	ledger.Delivered:  {ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered},
	ledger.Released:   {ledger.Released},
	ledger.Refused:    {ledger.Settling, ledger.Refused},
	ledger.Unknown:    {ledger.Settling, ledger.Unknown},
}

func bring(t *testing.T, l ledger.Ledger, key ledger.Key, to ledger.State) {
	t.Helper()
	c, err := l.Claim(t.Context(), ledger.Payment{Key: key, Keep: time.Now().Add(time.Hour)}, lease)
	for _, state := range way[to] {
		if err == nil {
			_, err = l.Move(t.Context(), c, ledger.Change{To: state})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFormerLedgerIsHeard: what a former ledger has of an authorization is what becomes of
// its claim.
func TestFormerLedgerIsHeard(t *testing.T) {
	for _, tt := range []struct {
		there ledger.State
		late  time.Duration // after it was brought there
		free  bool
		take  ledger.State // by which it goes on, there
	}{
		{there: "", free: true},
		{there: ledger.Released, free: true},
		{there: ledger.Refused, free: true},
		{there: ledger.Claimed},
		{there: ledger.Claimed, late: lease, free: true},
		{there: ledger.Settling},
		{there: ledger.Settling, late: lease, take: ledger.Settling},
		{there: ledger.Unknown, take: ledger.Settling},
		{there: ledger.Settled, late: lease, take: ledger.Delivering},
		{there: ledger.Delivering, late: lease, take: ledger.Delivering},
		{there: ledger.Delivered, take: ledger.Delivered},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.there, tt.late), func(t *testing.T) {
			now := time.Now()
			o := memory.Options{Now: func() time.Time { return now }}
			current, old := memory.New(o), memory.New(o)
			if tt.there != "" {
				bring(t, old, "k", tt.there)
			}
			now = now.Add(tt.late)
			l := ledger.Guard(ledger.WithFormer(current, zap.NewNop(), old))
			c, err := l.Claim(t.Context(), ledger.Payment{Key: "k"}, lease)
			taken, isTaken := errors.AsType[*ledger.TakenError](err)
			if tt.free {
				if err != nil {
					t.Fatalf("it is free, and a claim gets %v", err)
				}
				if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
					t.Error(err)
				}
				if row, err := current.Get(t.Context(), "k"); err != nil || row.State != ledger.Settling {
					t.Errorf("it was sold elsewhere: %v, %v", row.State, err)
				}
				return
			}
			if !isTaken || taken.Payment.State != tt.there {
				t.Fatalf("a claim gets %v, want that it is %s", err, tt.there)
			}
			if _, err := current.Get(t.Context(), "k"); !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("the current ledger keeps it: %v", err)
			}
			if row, err := l.Get(t.Context(), "k"); err != nil || row.State != tt.there {
				t.Errorf("Get: %s, %v", row.State, err)
			}
			if tt.take == "" {
				return
			}
			c, err = l.Take(t.Context(), "k", tt.take, lease)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Renew(t.Context(), c, 2*lease); err != nil {
				t.Error(err)
			}
			if !l.HeldHere("k") {
				t.Error("it is held elsewhere")
			}
			to := map[ledger.State]ledger.State{ledger.Settling: ledger.Settled, ledger.Delivering: ledger.Delivered, ledger.Delivered: ledger.Delivered}[tt.take]
			if row, err := l.Insist(t.Context(), c, ledger.Change{To: to, Reorganised: to == tt.take}, time.Second); err != nil || row.State != to {
				t.Errorf("moved to %s: %v", row.State, err)
			}
			if row, err := old.Get(t.Context(), "k"); err != nil || row.State != to {
				t.Errorf("there it is %s, %v", row.State, err)
			}
		})
	}
}

// TestFormerLedgerIsTheCurrentOne: under another name, which only a claim shows.
func TestFormerLedgerIsTheCurrentOne(t *testing.T) {
	one := memory.New(memory.Options{})
	l := ledger.WithFormer(one, zap.NewNop(), one)
	bring(t, l, "k", ledger.Delivered)
	bring(t, l, "other", ledger.Settled)
	var rows []string
	for row, err := range l.List(t.Context(), ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, string(row.Key))
	}
	if got := strings.Join(rows, " "); got != "k other" {
		t.Errorf("it lists %s", got)
	}
}

// TestTwoSuccessorsOfEachOther: of any number that present one authorization to gateways
// that sell in different ledgers, and know the other's, at most one goes on.
func TestTwoSuccessorsOfEachOther(t *testing.T) {
	a, b := memory.New(memory.Options{}), memory.New(memory.Options{})
	sells := []ledger.Ledger{ledger.WithFormer(a, zap.NewNop(), b), ledger.WithFormer(b, zap.NewNop(), a)}
	total := 0
	for i := range 300 {
		key := ledger.Key(fmt.Sprint("k", i))
		var won atomic.Int32
		var all sync.WaitGroup
		start := make(chan struct{})
		for n := range 4 {
			all.Go(func() {
				<-start
				l := sells[n%2]
				c, err := l.Claim(t.Context(), ledger.Payment{Key: key}, lease)
				if err != nil {
					return
				}
				if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err == nil {
					won.Add(1)
				}
			})
		}
		close(start)
		all.Wait()
		if won.Load() > 1 {
			t.Fatalf("%d go on with %s", won.Load(), key)
		}
		total += int(won.Load())
	}
	if total == 0 {
		t.Error("nobody goes on with anything")
	}
}

// TestLedgerThatComesLaterIsKnown: a claim that was under way when another ledger took over
// is found there, or finds out.
func TestLedgerThatComesLaterIsKnown(t *testing.T) {
	old, current := &scripted{Ledger: memory.New(memory.Options{})}, memory.New(memory.Options{})
	before := ledger.WithFormer(old, zap.NewNop())
	old.claimed = func() { // a reload, and there it is sold
		before.Know(current)
		bring(t, current, "k", ledger.Settling)
	}
	_, err := before.Claim(t.Context(), ledger.Payment{Key: "k"}, lease)
	if taken, ok := errors.AsType[*ledger.TakenError](err); !ok || taken.Payment.State != ledger.Settling {
		t.Errorf("the claim gets %v", err)
	}
	forget := before.Know(memory.New(memory.Options{}))
	forget()
	if _, err := before.Claim(t.Context(), ledger.Payment{Key: "another"}, lease); err != nil {
		t.Error(err)
	}
}

// TestFormerLedgerAway: what may be in it is not sold; what is in the current one goes on;
// and who asks in vain does not wait each time.
func TestFormerLedgerAway(t *testing.T) {
	old := &scripted{Ledger: memory.New(memory.Options{})}
	current := memory.New(memory.Options{})
	bring(t, current, "settling", ledger.Settling)
	bring(t, old, "owed", ledger.Settled)
	l := ledger.Guard(ledger.WithFormer(current, zap.NewNop(), old))
	old.away.Store(true)
	for range 3 {
		_, err := l.Claim(t.Context(), ledger.Payment{Key: "k"}, lease)
		if !errors.Is(err, ledger.ErrUnavailable) {
			t.Fatalf("a claim gets %v", err)
		}
		if _, err := current.Get(t.Context(), "k"); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("the current ledger keeps the claim: %v", err)
		}
	}
	if n := old.asked.Load(); n != 1 {
		t.Errorf("it was asked %d times at once", n)
	}
	if _, err := l.Get(t.Context(), "k"); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	if row, err := l.Get(t.Context(), "settling"); err != nil || row.State != ledger.Settling {
		t.Errorf("what is in the current one: %s, %v", row.State, err)
	}
	var keys []ledger.Key
	var failed error
	for row, err := range l.List(t.Context(), ledger.Filter{}) {
		if failed = err; err == nil {
			keys = append(keys, row.Key)
		}
	}
	if !errors.Is(failed, ledger.ErrUnavailable) || !slices.Equal(keys, []ledger.Key{"settling"}) {
		t.Errorf("List: %v, and then %v", keys, failed)
	}
	old.away.Store(false)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := l.Claim(t.Context(), ledger.Payment{Key: "k"}, lease)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is back, and a claim gets %v", err)
		}
	}
}

// TestFormerLedgerWithABug: a panic there is one there.
func TestFormerLedgerWithABug(t *testing.T) {
	old := &scripted{Ledger: memory.New(memory.Options{})}
	l := ledger.Guard(ledger.WithFormer(memory.New(memory.Options{}), zap.NewNop(), old))
	bring(t, l, "k", ledger.Settling)
	old.panics.Store(true)
	n := 0
	var failed error
	for _, err := range l.List(t.Context(), ledger.Filter{}) {
		if failed = err; err == nil {
			n++
		}
	}
	if n != 1 || failed == nil {
		t.Errorf("List: %d rows, and then %v", n, failed)
	}
}

// TestListsAreOneList in the order of time, up to the limit.
func TestListsAreOneList(t *testing.T) {
	now := time.Now()
	o := memory.Options{Now: func() time.Time { return now }}
	ledgers := []*memory.Ledger{memory.New(o), memory.New(o), memory.New(o)}
	var want []ledger.Key
	for i := range 30 {
		now = now.Add(time.Second)
		key := ledger.Key(fmt.Sprint("k", i))
		bring(t, ledgers[i*7%3], key, ledger.Settled)
		want = append(want, key)
	}
	l := ledger.WithFormer(ledgers[0], zap.NewNop(), ledgers[1], ledgers[2])
	for _, limit := range []int{0, 1, 10, 40} {
		var got []ledger.Key
		for row, err := range l.List(t.Context(), ledger.Filter{Limit: limit}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, row.Key)
		}
		want := want
		if limit > 0 {
			want = want[:min(limit, len(want))]
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
}

// TestChainIsThatOfAllLedgers: payments of another chain in a former one are not looked for
// on this one.
func TestChainIsThatOfAllLedgers(t *testing.T) {
	current, old := memory.New(memory.Options{}), memory.New(memory.Options{})
	if err := old.RememberGenesis(t.Context(), "eip155:84532", "0xa"); err != nil {
		t.Fatal(err)
	}
	l := ledger.WithFormer(current, zap.NewNop(), old)
	if err := l.RememberGenesis(t.Context(), "eip155:84532", "0xb"); !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("another chain: %v", err)
	}
	if err := l.RememberGenesis(t.Context(), "eip155:84532", "0xa"); err != nil {
		t.Errorf("its own: %v", err)
	}
}

// TestHolderIsAskedWhereTheRowIs, of ledgers that gateways share and those that none does.
func TestHolderIsAskedWhereTheRowIs(t *testing.T) {
	elsewhere := &peer{Ledger: memory.New(memory.Options{}), says: "the other"}
	own := memory.New(memory.Options{})
	bring(t, elsewhere, "there", ledger.Settled)
	bring(t, own, "here", ledger.Settled)
	for name, l := range map[string]ledger.Ledger{
		"the former one is shared":  ledger.WithFormer(own, zap.NewNop(), elsewhere),
		"the current one is shared": ledger.WithFormer(elsewhere, zap.NewNop(), own),
	} {
		t.Run(name, func(t *testing.T) {
			g := ledger.Guard(l)
			if !g.HeldHere("here") || g.HeldHere("there") {
				t.Error("it does not know who holds what")
			}
			if said, err := g.AskHolder(t.Context(), "there"); string(said) != "the other" || err != nil {
				t.Errorf("asked for what is there: %q, %v", said, err)
			}
			if said, err := g.AskHolder(t.Context(), "here"); err == nil {
				t.Errorf("asked for what is here: %q", said)
			}
			g.AnswerPeers(func(context.Context, ledger.Key) []byte { return nil })
			if !elsewhere.answers {
				t.Error("it answers nobody")
			}
			elsewhere.answers = false
		})
	}
}

// scripted is a ledger that fails when told to.
type scripted struct {
	ledger.Ledger
	away, panics atomic.Bool
	asked        atomic.Int32
	claimed      func()
}

func (s *scripted) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	c, err := s.Ledger.Claim(ctx, p, lease)
	if s.claimed != nil && p.Key == "k" {
		s.claimed()
	}
	return c, err
}

func (s *scripted) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	if s.asked.Add(1); s.away.Load() {
		return ledger.Payment{}, errors.New("it is away")
	}
	return s.Ledger.Get(ctx, key)
}

func (s *scripted) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		if s.panics.Load() {
			panic("a bug")
		}
		if s.away.Load() {
			yield(ledger.Payment{}, errors.New("it is away"))
			return
		}
		s.Ledger.List(ctx, f)(yield)
	}
}

// peer is a ledger whose rows another gateway holds.
type peer struct {
	ledger.Ledger
	says    string
	answers bool
}

func (p *peer) HeldHere(ledger.Key) bool { return false }

func (p *peer) AskHolder(context.Context, ledger.Key) ([]byte, error) { return []byte(p.says), nil }

func (p *peer) AnswerPeers(func(context.Context, ledger.Key) []byte) { p.answers = true }
