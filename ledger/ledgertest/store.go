package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// testCopies: what came out of the ledger and what went in is the caller's.
func testCopies(s *suite) {
	request := []byte("mine")
	p := s.payment("k")
	p.Request = request
	c, err := s.Claim(s.Context(), p, lease)
	if err != nil {
		s.Fatal(err)
	}
	want := func(what, text string) {
		s.Helper()
		if got := s.get("k").Request; string(got) != text {
			s.Fatalf("after writing to %s the ledger has %q", what, got)
		}
	}
	scribble := func(p ledger.Payment) {
		for _, b := range [][]byte{p.Request, p.Answer} {
			for i := range b {
				b[i] = '#'
			}
		}
	}
	scribble(ledger.Payment{Request: request})
	want("what was given to Claim", "mine")
	scribble(c.Payment)
	want("what Claim gave", "mine")

	change := ledger.Change{To: ledger.Settling, Request: []byte("next")}
	moved := s.move(c, change)
	scribble(ledger.Payment{Request: change.Request})
	want("what was given to Move", "next")
	scribble(moved)
	want("what Move gave", "next")
	scribble(s.get("k"))
	want("what Get gave", "next")
	for _, p := range s.list(ledger.Filter{}) {
		scribble(p)
	}
	want("what List gave", "next")
	_, err = s.Claim(s.Context(), p, lease)
	taken, ok := errors.AsType[*ledger.TakenError](err)
	if !ok {
		s.Fatalf("error = %v, want a TakenError", err)
	}
	scribble(taken.Payment)
	want("what TakenError has", "next")
	s.advance(lease)
	scribble(s.take("k", ledger.Settling).Payment)
	want("what Take gave", "next")
}

// testBytes: the world's strings are stored as they are.
func testBytes(s *suite) {
	keys := []ledger.Key{
		"'; DROP TABLE payments; --", `"quoted" \back\slash`, "%_*?[]", "with space", " with space ", "tab\tand\nline",
		"upper", "UPPER", "ünï", "u\u0308nï", "日本語", "🧾", "a:b:c|d", "0x00", "$1", "?", ledger.Key(strings.Repeat("long", 500)),
	}
	for _, key := range keys {
		s.claim(key)
	}
	for _, key := range keys {
		if p := s.get(key); p.Key != key || p.ID != ledger.ID(key) {
			s.Errorf("%q came back as %q, %s", key, p.Key, p.ID)
		}
	}
	if got := len(s.list(ledger.Filter{})); got != len(keys) {
		s.Errorf("%d rows for %d keys", got, len(keys))
	}

	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	p := s.payment("large")
	p.Request = bytes.Repeat(every, 64) // 16 KiB
	p.URL = "/caf\xe9?q=\xff\x80%00&" + strings.Repeat("x", 8000)
	p.Amount = strings.Repeat("9", 78) // the largest of 256 bits
	c, err := s.Claim(s.Context(), p, lease)
	if err != nil {
		s.Fatal(err)
	}
	if got := s.get("large"); !bytes.Equal(got.Request, p.Request) || got.URL != p.URL || got.Amount != p.Amount {
		s.Errorf("came back as %d bytes, %q, %s", len(got.Request), got.URL, got.Amount)
	}
	if got := s.list(ledger.Filter{URL: p.URL}); len(got) != 1 {
		s.Errorf("%d rows have that URL", len(got))
	}
	// A facilitator's text must not be able to hold up a payment.
	s.move(c, ledger.Change{To: ledger.Settling, Reason: "nul \x00, broken \xff\xfe, " + strings.Repeat("long ", 10000)})
	if got := s.get("large"); got.State != ledger.Settling || !strings.HasPrefix(got.Reason, "nul") {
		s.Errorf("%s, reason %q", got.State, got.Reason)
	}
}

// testOtherKeys: what happens to one payment does not touch another.
func testOtherKeys(s *suite) {
	a, b := s.claim("a"), s.claim("b")
	s.move(a, ledger.Change{To: ledger.Settling})
	s.wantRow(b.Payment)
	s.move(b, ledger.Change{To: ledger.Released})
	s.claim("b")
	s.move(a, ledger.Change{To: ledger.Settled, Transaction: "0xa"})
	if p := s.get("b"); p.State != ledger.Claimed || p.Transaction != "" {
		s.Errorf("b is %s with %q", p.State, p.Transaction)
	}
}

func testInvalid(s *suite) {
	ctx := s.Context()
	claim := func(p ledger.Payment, lease time.Duration) error {
		_, err := s.Claim(ctx, p, lease)
		return err
	}
	s.wantError("Claim without a key", claim(s.payment(""), lease), ledger.ErrInvalid)
	s.wantError("Claim without a lease", claim(s.payment("k"), 0), ledger.ErrInvalid)
	s.wantError("Claim with a lease in the past", claim(s.payment("k"), -lease), ledger.ErrInvalid)
	if rows := s.list(ledger.Filter{}); len(rows) != 0 {
		s.Errorf("%d rows came of it", len(rows))
	}
	c := s.bring("k", ledger.Settling)
	s.wantError("Renew without a lease", s.Renew(ctx, c, 0), ledger.ErrInvalid)
	_, err := s.Move(ctx, c, ledger.Change{To: ledger.Settled, Runs: -1})
	s.wantError("Move that takes runs away", err, ledger.ErrInvalid)
	_, err = s.Move(ctx, c, ledger.Change{To: ledger.Settled, Ended: -1})
	s.wantError("Move that takes endings away", err, ledger.ErrInvalid)
	s.wantRow(c.Payment)
	s.advance(lease)
	_, err = s.Take(ctx, "k", ledger.Settling, 0)
	s.wantError("Take without a lease", err, ledger.ErrInvalid)
	s.wantRow(c.Payment)
}

// testCancelled: a context that is done when the call begins stops it.
func testCancelled(s *suite) {
	c := s.bring("k", ledger.Settling)
	s.bring("free", ledger.Unknown)
	ctx := done(s.Context())

	_, err := s.Claim(ctx, s.payment("new"), lease)
	s.wantError("Claim", err, context.Canceled)
	_, err = s.Take(ctx, "free", ledger.Settling, lease)
	s.wantError("Take", err, context.Canceled)
	_, err = s.Move(ctx, c, ledger.Change{To: ledger.Settled})
	s.wantError("Move", err, context.Canceled)
	s.wantError("Renew", s.Renew(ctx, c, 2*lease), context.Canceled)
	_, err = s.Get(ctx, "k")
	s.wantError("Get", err, context.Canceled)
	n := 0
	for _, err := range s.List(ctx, ledger.Filter{}) {
		s.wantError("List", err, context.Canceled)
		n++
	}
	if n != 1 {
		s.Errorf("List: %d steps, want one with the error", n)
	}

	s.wantRow(c.Payment)
	if p := s.get("free"); p.State != ledger.Unknown {
		s.Errorf("free is %s", p.State)
	}
	_, err = s.Get(s.Context(), "new")
	s.wantError("Get of what was not claimed", err, ledger.ErrNotFound)
}

// testKeep: a payment is remembered until Keep, and until the end of its
// authorization whatever Keep says; one in doubt for ever.
func testKeep(s *suite) {
	paid := []ledger.State{ledger.Settled, ledger.Delivering, ledger.Delivered}
	doubtful := []ledger.State{ledger.Settling, ledger.Unknown}
	remembered := map[ledger.Key]ledger.Payment{}
	for _, state := range append(paid, doubtful...) {
		remembered[ledger.Key(state)] = s.bring(ledger.Key(state), state).Payment
	}
	short := s.payment("short")
	short.ValidBefore, short.Keep = s.Now().Add(keep), s.Now().Add(time.Minute)
	c, err := s.Claim(s.Context(), short, lease)
	if err != nil {
		s.Fatal(err)
	}
	for _, to := range way(ledger.Delivered) {
		remembered["short"] = s.move(c, ledger.Change{To: to})
	}

	check := func(when string) {
		s.Helper()
		for i := range 50 { // a store may use the time of other calls to clean up
			s.bring(ledger.Key(fmt.Sprint(when, i)), ledger.Delivered)
		}
		for key, row := range remembered {
			s.wantRow(row)
			_, err := s.Claim(s.Context(), s.payment(key), lease)
			s.wantTaken(err, row)
		}
	}
	check("at once")
	s.advance(keep - time.Second)
	check("before Keep")
	s.advance(365 * 24 * time.Hour)
	for _, state := range paid {
		delete(remembered, ledger.Key(state))
	}
	delete(remembered, "short")
	check("after Keep")
}
