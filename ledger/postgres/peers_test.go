package postgres

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// hears waits until a gateway hears others.
func hears(t *testing.T, l *Ledger) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.peers.mu.Lock()
		hears := l.peers.hears
		l.peers.mu.Unlock()
		if hears {
			return
		}
	}
	t.Fatal("a gateway does not hear others")
}

// speaker is a gateway that holds one payment, and says its name of it.
func speaker(t *testing.T, s *server, schema, name string, k uint64) (*Ledger, ledger.Claim) {
	t.Helper()
	l := s.gateway(t, schema, Options{})
	l.AnswerPeers(func(_ context.Context, key ledger.Key) []byte {
		if !l.HeldHere(key) {
			return nil
		}
		return []byte(name + " has " + string(key))
	})
	c, err := l.Claim(t.Context(), sample(k), lease)
	if err != nil {
		t.Fatal(err)
	}
	hears(t, l)
	return l, c
}

// TestGatewaysAskEachOther what they know of a payment: who holds it answers, and nobody
// else.
func TestGatewaysAskEachOther(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	one, held := speaker(t, s, schema, "one", 1)
	two, _ := speaker(t, s, schema, "two", 2)
	elsewhere, _ := speaker(t, s, s.newSchema(t), "elsewhere", 1)
	expect := func(l *Ledger, k uint64, want string) {
		t.Helper()
		said, err := l.AskHolder(t.Context(), sample(k).Key)
		if want == "" && !errors.Is(err, ledger.ErrNoAnswer) || want != "" && (err != nil || string(said) != want+" has "+string(sample(k).Key)) {
			t.Errorf("%s, %v, want %q", said, err, want)
		}
	}
	expect(one, 2, "two")
	expect(two, 1, "one")
	expect(two, 3, "")
	expect(elsewhere, 2, "") // another ledger in the same database
	if _, err := one.Move(t.Context(), held, ledger.Change{To: ledger.Released}); err != nil {
		t.Fatal(err)
	}
	expect(two, 1, "")
	one.Close()
	if _, err := one.AskHolder(t.Context(), sample(2).Key); err == nil {
		t.Error("one that is closed still asks")
	}
	expect(two, 2, "two")
}

// TestGatewaysHearEachOtherAfterACrash of the database.
func TestGatewaysHearEachOtherAfterACrash(t *testing.T) {
	s := ownServer(t)
	schema := s.newSchema(t)
	one, _ := speaker(t, s, schema, "one", 1)
	two, _ := speaker(t, s, schema, "two", 2)
	s.stop(syscall.SIGQUIT)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		said, err := one.AskHolder(t.Context(), sample(2).Key)
		if err == nil && string(said) == "two has "+string(sample(2).Key) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s, %v", said, err)
		}
	}
	hears(t, two)
}

// TestABugInAnAnswerEndsNobody: who asks has no answer, and the next one has.
func TestABugInAnAnswerEndsNobody(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	one, _ := speaker(t, s, schema, "one", 1)
	two, _ := speaker(t, s, schema, "two", 2)
	one.AnswerPeers(func(context.Context, ledger.Key) []byte { panic("a bug") })
	if said, err := two.AskHolder(t.Context(), sample(1).Key); !errors.Is(err, ledger.ErrNoAnswer) {
		t.Errorf("%s, %v", said, err)
	}
	one.AnswerPeers(func(context.Context, ledger.Key) []byte { return []byte("well") })
	if said, err := two.AskHolder(t.Context(), sample(1).Key); err != nil || string(said) != "well" {
		t.Errorf("%s, %v", said, err)
	}
}
