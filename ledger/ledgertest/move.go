package ledgertest

import (
	"bytes"
	"slices"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// moves is where the holder of a row without doubt, whose lease runs, can bring
// it without proof. It is written out here, so that a slip in the rules shows.
var moves = map[ledger.State][]ledger.State{
	ledger.Claimed: {ledger.Settling, ledger.Released},
	ledger.Settling: {
		ledger.Settling, ledger.Settled, ledger.Refused, ledger.Unknown, ledger.Released,
	},
	ledger.Settled:    {ledger.Settled, ledger.Delivering},
	ledger.Delivering: {ledger.Settled, ledger.Delivering, ledger.Delivered},
}

func testMoves(s *suite) {
	for _, from := range ledger.States() {
		for _, to := range append(ledger.States(), "", "sold") {
			s.advance(time.Second)
			c := s.bring(ledger.Key(from+" to "+to), from)
			s.advance(time.Second)
			p, err := s.Move(s.Context(), c, ledger.Change{To: to})
			want := c.Payment
			if !slices.Contains(moves[from], to) {
				s.wantError(string("Move from "+from+" to "+to), err, ledger.ErrLost)
				s.wantRow(want)
				continue
			}
			if err != nil {
				s.Errorf("Move from %s to %s: %v", from, to, err)
				continue
			}
			want.State, want.Updated = to, s.Now()
			want.Doubt = to == ledger.Unknown || to == ledger.Settling && from == ledger.Settling
			switch to {
			case ledger.Delivered, ledger.Refused, ledger.Released:
				want.Request = nil
			default:
			}
			if !keepsHold(from, to) {
				want.Lease = time.Time{}
				s.wantNoHold(c)
			}
			s.wantEqual("the row moved", p, want)
			s.wantRow(want)
		}
	}
}

// testAnnounce: a settlement that names the transaction that it is about to send is not
// in doubt for that, and may still say that nothing was sent.
func testAnnounce(s *suite) {
	for _, to := range []ledger.State{ledger.Settled, ledger.Released, ledger.Refused} {
		c := s.bring(ledger.Key("announced "+to), ledger.Settling)
		p, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Settling, Transaction: "0xabc", Announces: true})
		if err != nil || p.Doubt || p.Transaction != "0xabc" {
			s.Errorf("announcing: %+v, %v", p, err)
		}
		if _, err := s.Move(s.Context(), c, ledger.Change{To: to}); err != nil {
			s.Errorf("to %s afterwards: %v", to, err)
		}
	}
	c := s.bring("doubted", ledger.Settling)
	s.move(c, ledger.Change{To: ledger.Settling})
	if p, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Settling, Transaction: "0xabc", Announces: true}); err != nil || !p.Doubt {
		s.Errorf("announcing takes doubt away: %+v, %v", p, err)
	}
}

// keepsHold says whether the holder goes on after the move.
func keepsHold(from, to ledger.State) bool {
	return to == ledger.Settling || to == ledger.Delivering || to == ledger.Settled && from == ledger.Settling
}

// testDoubt: once a settlement may have happened unseen, only the chain's word
// makes the payment free.
func testDoubt(s *suite) {
	ways := map[ledger.Key]func(ledger.Key) ledger.Claim{
		"asked twice": func(key ledger.Key) ledger.Claim {
			c := s.bring(key, ledger.Settling)
			s.move(c, ledger.Change{To: ledger.Settling})
			return c
		},
		"holder gone": func(key ledger.Key) ledger.Claim {
			s.bring(key, ledger.Settling)
			s.advance(lease)
			return s.take(key, ledger.Settling)
		},
		"unknown": func(key ledger.Key) ledger.Claim {
			s.bring(key, ledger.Unknown)
			return s.take(key, ledger.Settling)
		},
	}
	for key, doubtful := range ways {
		c := doubtful(key)
		if !s.get(key).Doubt {
			s.Errorf("%s: no doubt", key)
		}
		for _, ch := range []ledger.Change{
			{To: ledger.Refused}, {To: ledger.Released}, {To: ledger.Released, Proven: true},
		} {
			_, err := s.Move(s.Context(), c, ch)
			s.wantError(string(key)+": to "+string(ch.To), err, ledger.ErrLost)
		}
		s.move(c, ledger.Change{To: ledger.Unknown})
		_, err := s.Claim(s.Context(), s.payment(key), lease)
		s.wantTaken(err, s.get(key))

		// Either the money moved after all, or it is proven that it did not.
		paid := doubtful(key + ", paid")
		s.move(paid, ledger.Change{To: ledger.Settled, Transaction: "0x1"})
		s.move(paid, ledger.Change{To: ledger.Delivering})
		s.move(paid, ledger.Change{To: ledger.Delivered})

		c = s.take(key, ledger.Settling)
		s.move(c, ledger.Change{To: ledger.Refused, Proven: true})
		if s.claim(key).Payment.Doubt {
			s.Errorf("%s: the new claim has the doubt of the old one", key)
		}
	}
}

// testReorganisation: the chain takes a settlement back before the goods arrive.
func testReorganisation(s *suite) {
	for _, from := range []ledger.State{ledger.Settled, ledger.Delivering} {
		c := s.bring(ledger.Key(from), from)
		_, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Settling})
		s.wantError("to settling without a reorganisation", err, ledger.ErrLost)
		p := s.move(c, ledger.Change{To: ledger.Settling, Reorganised: true})
		if !p.Doubt || !bytes.Equal(p.Request, s.payment("").Request) {
			s.Errorf("settling again: doubt %v, request %q", p.Doubt, p.Request)
		}
		s.move(c, ledger.Change{To: ledger.Settled})
	}
	c := s.bring("final", ledger.Delivered)
	_, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Settling, Reorganised: true})
	s.wantError("a delivered payment", err, ledger.ErrLost)
	testReorganisedLate(s)
}

// testReorganisedLate: the chain takes a settlement back after the goods have
// arrived. The row stays delivered, and says so, until the money is back.
func testReorganisedLate(s *suite) {
	c := s.bring("late", ledger.Settled)
	s.move(c, ledger.Change{To: ledger.Delivering, Transaction: "0x1", Status: 200, Runs: 1})
	want := s.move(c, ledger.Change{To: ledger.Delivered})
	_, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Delivered, Reorganised: true, Reason: "forged"})
	s.wantError("without a hold", err, ledger.ErrLost)

	for _, ch := range []ledger.Change{
		{Reason: "settlement_reverted"},
		{Reason: "settlement_reverted"},
		{Transaction: "0x2"},
		{Reason: "settlement_reverted"},
		{Transaction: "0x3", Facilitator: "another"},
	} {
		s.advance(time.Second)
		c := s.take("late", ledger.Delivered)
		_, err := s.Take(s.Context(), "late", ledger.Delivered, lease)
		s.wantTaken(err, s.get("late"))
		for _, to := range ledger.States() {
			_, err := s.Move(s.Context(), c, ledger.Change{To: to, Proven: true, Reorganised: to != ledger.Delivered, Reason: "forged"})
			s.wantError("from delivered to "+string(to), err, ledger.ErrLost)
		}
		s.advance(2 * lease) // it is heard though its lease is over
		ch.To, ch.Reorganised = ledger.Delivered, true
		want.Updated, want.Reason = s.Now(), ch.Reason
		if ch.Transaction != "" {
			want.Transaction = ch.Transaction
		}
		if ch.Facilitator != "" {
			want.Facilitator = ch.Facilitator
		}
		s.wantEqual("the delivered row", s.move(c, ch), want)
		s.wantRow(want)
		s.wantNoHold(c)
		_, err = s.Claim(s.Context(), s.payment("late"), lease)
		s.wantTaken(err, want)
		_, err = s.Take(s.Context(), "late", ledger.Delivering, lease)
		s.wantTaken(err, want)
	}
	for range 2 { // whoever took it is gone
		s.take("late", ledger.Delivered)
		s.advance(lease)
	}
}

// testFacts: facts that come with a move go into the row; empty ones take
// nothing away.
func testFacts(s *suite) {
	c := s.bring("k", ledger.Settling)
	want := c.Payment

	got := s.move(c, ledger.Change{
		To: ledger.Settled, Facilitator: "cdp", Transaction: "0x1", Payer: "0xother", Amount: "7",
		Reason: "because", Status: 200, Request: []byte("[1]"), Answer: []byte("a"), Runs: 1,
		Body: "sha-256 and length", Ended: 1,
	})
	want.State, want.Facilitator, want.Transaction, want.Payer, want.Amount = ledger.Settled, "cdp", "0x1", "0xother", "7"
	want.Reason, want.Status, want.Request, want.Answer, want.Runs = "because", 200, []byte("[1]"), []byte("a"), 1
	want.Body, want.Ended = "sha-256 and length", 1
	s.wantEqual("the row with facts", got, want)

	want.State = ledger.Delivering
	s.wantEqual("the row after an empty change", s.move(c, ledger.Change{To: ledger.Delivering}), want)

	got = s.move(c, ledger.Change{To: ledger.Settled, Status: 502, Runs: 2, Ended: 3, Reason: "broken off"})
	want.State, want.Lease = ledger.Settled, time.Time{}
	want.Status, want.Runs, want.Reason = 502, 3, "broken off"
	want.Ended = 4
	s.wantEqual("the row after a second run", got, want)
	s.wantRow(want)
	if found := s.list(ledger.Filter{Payer: "0xother"}); len(found) != 1 {
		s.Errorf("List by the new payer has %d rows", len(found))
	}
	if found := s.list(ledger.Filter{Identifier: want.Identifier}); len(found) != 1 {
		s.Errorf("List by the identifier has %d rows", len(found))
	}
	if found := s.list(ledger.Filter{Identifier: "another"}); len(found) != 0 {
		s.Errorf("List by another identifier has %d rows", len(found))
	}
	if found := s.list(ledger.Filter{Payer: "0xpayer"}); len(found) != 0 {
		s.Errorf("List by the old payer has %d rows", len(found))
	}
}

// testFields: every field that a caller of Claim can give comes back from every
// call, in every state.
func testFields(s *suite) {
	for _, change := range []struct {
		name string
		of   func(*ledger.Payment)
	}{
		{"all set", func(*ledger.Payment) {}},
		{"no line", func(p *ledger.Payment) { p.Line = "" }},
		{"no effects", func(p *ledger.Payment) { p.Effects = false }},
		{"no body", func(p *ledger.Payment) { p.Body = "" }},
		{"no end of fetching", func(p *ledger.Payment) { p.FetchBy = time.Time{} }},
		{"nothing to keep", func(p *ledger.Payment) { p.Keep, p.ValidBefore = time.Time{}, time.Time{} }},
		{"no request", func(p *ledger.Payment) { p.Request = nil }},
	} {
		p := s.payment(ledger.Key(change.name))
		change.of(&p)
		c, err := s.Claim(s.Context(), p, lease)
		if err != nil {
			s.Fatalf("%s: %v", change.name, err)
		}
		want := c.Payment
		for _, same := range []struct{ got, want any }{
			{want.Line, p.Line},
			{want.Effects, p.Effects},
			{want.Body, p.Body},
			{want.FetchBy.Equal(p.FetchBy), true},
			{want.Keep.Equal(p.Keep), true},
			{string(want.Request), string(p.Request)},
		} {
			if same.got != same.want {
				s.Errorf("%s: Claim returned %v, want %v", change.name, same.got, same.want)
			}
		}
		for _, to := range way(ledger.Delivering) {
			want.State = to
			s.wantEqual("the row moved", s.move(c, ledger.Change{To: to}), want)
			s.wantRow(want)
			listed := s.list(ledger.Filter{States: []ledger.State{to}, Payer: want.Payer})
			if len(listed) == 0 {
				s.Fatalf("%s: not listed as %s", change.name, to)
			}
			s.wantEqual("the listed row", listed[len(listed)-1], want)
		}
		// A broken delivery gives the body and how it ended.
		got := s.move(c, ledger.Change{To: ledger.Settled, Body: "digest", Ended: 2, Answer: []byte("kept")})
		want.State, want.Lease = ledger.Settled, time.Time{}
		want.Body, want.Ended, want.Answer = "digest", 2, []byte("kept")
		s.wantEqual("the row let go", got, want)
		s.wantRow(want)
		c = s.take(want.Key, ledger.Delivering)
		want.State, want.Lease = ledger.Delivering, c.Payment.Lease
		s.wantEqual("the row taken", c.Payment, want)
		got = s.move(c, ledger.Change{To: ledger.Delivered, Ended: 1})
		want.State, want.Lease, want.Ended = ledger.Delivered, time.Time{}, 3
		want.Request, want.Answer = nil, nil
		s.wantEqual("the row delivered", got, want)
		s.wantRow(want)
		s.advance(time.Second)
	}
}
