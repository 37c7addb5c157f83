package succession

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
)

// at is a ledger at a place.
type at struct {
	*memory.Ledger
	place string
}

func (l at) Where() string { return l.place }

// store has a ledger for each place, as a process has.
type store map[string]*memory.Ledger

func (s store) loaded(places ...string) (all []Loaded) {
	for _, place := range places {
		if s[place] == nil {
			s[place] = memory.New(memory.Options{})
		}
		all = append(all, Loaded{Raw: json.RawMessage(place), Ledger: at{s[place], place}})
	}
	return all
}

// enter does what a config does when it is loaded, and says what was kept.
func (s store) enter(t *testing.T, l *Ledgers, own string, named ...string) (*Config, string) {
	t.Helper()
	c, kept, err := l.Enter(s.loaded(own)[0], s.loaded(named...), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, raw := range kept {
		places = append(places, string(raw))
	}
	c.Keep(s.loaded(places...))
	return c, strings.Join(places, " ")
}

// TestFormerLedgersAreKept over reloads: the one before, and those before that while they
// are needed; what the config names it decides about.
func TestFormerLedgersAreKept(t *testing.T) {
	for _, tt := range []struct {
		name    string
		reloads []string // own and named ones; idle: ! after the config is there
		kept    []string
	}{
		{"the same", []string{"a", "a"}, []string{"", ""}},
		{"another", []string{"a", "b", "b"}, []string{"", "a", "a"}},
		{"there and back", []string{"a", "b", "a", "b"}, []string{"", "a", "b", "a"}},
		{"on to a third", []string{"a", "b", "c"}, []string{"", "a", "b a"}},
		{"named", []string{"a", "b a", "b a"}, []string{"", "", ""}},
		{"named, and given up", []string{"a", "b a", "b"}, []string{"", "", ""}},
		{"named later", []string{"a", "b", "b a"}, []string{"", "a", ""}},
		{"nothing is left in it", []string{"a", "b !", "b"}, []string{"", "a", ""}},
		{"nothing was left in it, and it was sold in again", []string{"a", "b !", "a", "c"}, []string{"", "a", "b", "a b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, l := store{}, new(Ledgers)
			var before *Config
			for i, reload := range tt.reloads {
				words := strings.Fields(reload)
				idle := words[len(words)-1] == "!"
				words = slices.DeleteFunc(words, func(w string) bool { return w == "!" })
				c, kept := s.enter(t, l, words[0], words[1:]...)
				if kept != tt.kept[i] {
					t.Errorf("reload %d to %s keeps %q, want %q", i, reload, kept, tt.kept[i])
				}
				if before != nil {
					before.Leave()
				}
				for _, f := range c.formers {
					f.idle.Store(idle)
				}
				before = c
			}
		})
	}
}

// TestLedgerIsNamedOnce: a former ledger is another one.
func TestLedgerIsNamedOnce(t *testing.T) {
	s, l := store{}, new(Ledgers)
	for _, named := range [][]string{{"a"}, {"b", "b"}} {
		_, _, err := l.Enter(s.loaded("a")[0], s.loaded(named...), zap.NewNop())
		if _, ok := errors.AsType[SameError](err); !ok {
			t.Errorf("%v beside a: %v", named, err)
		}
	}
	if len(l.configs) != 0 {
		t.Error("it is there all the same")
	}
}

// TestEarlierConfigKnowsTheLaterLedger as long as the later config is there: a reload may
// fail after all.
func TestEarlierConfigKnowsTheLaterLedger(t *testing.T) {
	s, l := store{}, new(Ledgers)
	a, _ := s.enter(t, l, "a")
	b, _ := s.enter(t, l, "b")
	if _, err := b.Ledger.Claim(t.Context(), ledger.Payment{Key: "k"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	_, err := a.Ledger.Claim(t.Context(), ledger.Payment{Key: "k"}, time.Minute)
	if _, ok := errors.AsType[*ledger.TakenError](err); !ok {
		t.Errorf("a purchase of the earlier config: %v", err)
	}
	b.Leave()
	if _, err := a.Ledger.Claim(t.Context(), ledger.Payment{Key: "k"}, time.Minute); err != nil {
		t.Errorf("the later config is gone: %v", err)
	}
}

// TestLook counts what is left in a former ledger.
func TestLook(t *testing.T) {
	begin := time.Now()
	now := begin
	l := memory.New(memory.Options{Now: func() time.Time { return now }})
	bring := func(key ledger.Key, fetchBy time.Duration, to ...ledger.State) {
		p := ledger.Payment{Key: key, ValidBefore: begin.Add(time.Hour), Keep: begin.Add(1000 * time.Hour)}
		if key == "endless" {
			p.ValidBefore, p.Keep = time.Time{}, begin.Add(endless)
		}
		if fetchBy > 0 {
			p.FetchBy = begin.Add(fetchBy)
		}
		c, err := l.Claim(t.Context(), p, time.Minute)
		for _, state := range to {
			if err == nil {
				_, err = l.Move(t.Context(), c, ledger.Change{To: state})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, want left) {
		t.Helper()
		if got, err := look(t.Context(), l, now); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", when, got, err, want)
		}
	}
	want("nothing", left{})
	bring("refused", 0, ledger.Settling, ledger.Refused)
	want("refused", left{})
	bring("delivered", 0, ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered)
	want("delivered", left{lately: true})
	now = now.Add(payable + time.Second)
	want("delivered long ago", left{})
	now = begin
	bring("endless", 0, ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered)
	now = now.Add(payable + time.Second)
	want("delivered, and the chain alone knows when it ends", left{lately: true})
	now = begin
	bring("owed", 48*time.Hour, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("owed for ever", 0, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("doubt", 0, ledger.Settling, ledger.Unknown)
	bring("settling", 0, ledger.Settling)
	bring("claimed", 0)
	want("all", left{owed: 2, doubt: 1, held: 2, lately: true})
	now = now.Add(2 * time.Minute)
	want("after the leases", left{owed: 2, doubt: 2, lately: true})
	now = now.Add(payable + time.Second)
	want("after the authorizations", left{owed: 2, doubt: 2})
	now = now.Add(48 * time.Hour)
	want("when the one cannot be fetched any more", left{owed: 1, doubt: 2})
}

// TestWatchTellsTheOperator with counts, and when nothing is left.
func TestWatchTellsTheOperator(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	s, l := store{}, new(Ledgers)
	s.enter(t, l, "a")
	c, kept, err := l.Enter(s.loaded("b")[0], s.loaded("named"), zap.New(core))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	c.Keep(s.loaded("a"))
	c.Watch(t.Context())
	for _, want := range []string{
		"a reload has changed the ledger.", "the next reload lets it go", "is seen to", "its former_ledger can be taken out",
	} {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if slices.ContainsFunc(logs.All(), func(e observer.LoggedEntry) bool { return strings.Contains(e.Message, want) }) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the log does not have %q: %v", want, logs.All())
			}
		}
	}
}
