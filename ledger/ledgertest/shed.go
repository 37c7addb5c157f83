package ledgertest

import (
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Cleaner is a ledger that cleans up in the background and not in the time of other
// calls. What open returns to Run then has it too.
type Cleaner interface {
	// Clean does at once what the background would do soon.
	Clean() error
}

// clean gives the ledger the time to clean up.
func (s *suite) clean() {
	s.Helper()
	if c, ok := s.Ledger.(Cleaner); ok {
		if err := c.Clean(); err != nil {
			s.Fatalf("Clean: %v", err)
		}
	}
	for range 20 { // with more than one thing to do in each
		s.cleaned++
		s.claim(ledger.Key(fmt.Sprint("cleaning ", s.cleaned)))
	}
}

// testShed: when nobody can fetch any more what was paid for, its signed request and
// the answer that was kept go; nothing else does, and none goes from under a holder.
func testShed(s *suite) {
	const fetchBy = time.Hour
	rows := map[ledger.Key]ledger.Payment{}
	claims := map[ledger.Key]ledger.Claim{}
	bring := func(key ledger.Key, fetchBy time.Duration, lease time.Duration, to ...ledger.State) {
		s.Helper()
		p := s.payment(key)
		p.FetchBy = time.Time{}
		if fetchBy > 0 {
			p.FetchBy = s.Now().Add(fetchBy)
		}
		c, err := s.Claim(s.Context(), p, lease)
		if err != nil {
			s.Fatal(err)
		}
		for _, to := range to {
			c.Payment = s.move(c, ledger.Change{To: to, Answer: []byte("an answer that was kept"), Body: "digest"})
		}
		rows[key], claims[key] = c.Payment, c
	}
	bring("settled", fetchBy, lease, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("reorganised", fetchBy, lease, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("until keep", 0, lease, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("delivering", fetchBy, lease, ledger.Settling, ledger.Settled, ledger.Delivering)
	bring("held", fetchBy, 2*fetchBy, ledger.Settling, ledger.Settled, ledger.Delivering)
	bring("settling", fetchBy, lease, ledger.Settling)
	bring("unknown", fetchBy, lease, ledger.Settling, ledger.Unknown)
	check := func(when string, gone ...ledger.Key) {
		s.Helper()
		s.clean()
		for _, key := range gone {
			row := rows[key]
			row.Request, row.Answer = nil, nil
			rows[key] = row
		}
		for key, row := range rows {
			got := s.get(key)
			s.wantEqual(when+": the row", got, row)
			n := 0
			for _, p := range s.list(ledger.Filter{States: []ledger.State{row.State}}) {
				if p.Key == key {
					s.wantEqual(when+": the listed row", p, row)
					n++
				}
			}
			if n != 1 {
				s.Errorf("%s: %q is listed %d times", when, key, n)
			}
		}
	}
	check("at once")
	s.advance(fetchBy - time.Microsecond)
	check("before the end")
	s.advance(time.Microsecond)
	check("at the end", "settled", "reorganised", "delivering")

	// A holder that comes back late finds what everybody finds, and is still one.
	c := claims["delivering"]
	s.wantError("Renew by a late holder", s.Renew(s.Context(), c, lease), nil)
	row := s.move(c, ledger.Change{To: ledger.Delivering, Status: 200})
	want := rows["delivering"]
	want.Status, want.Updated, want.Lease = 200, s.Now(), s.Now().Add(lease)
	s.wantEqual("the row of a late holder", row, want)
	rows["delivering"] = row

	// One that somebody takes later can get another request, and another answer.
	c = s.take("reorganised", ledger.Delivering)
	c.Payment = s.move(c, ledger.Change{To: ledger.Settling, Reorganised: true, Request: []byte("signed again")})
	rows["reorganised"] = c.Payment
	check("asked again")
	s.move(c, ledger.Change{To: ledger.Settled})
	rows["reorganised"] = s.move(c, ledger.Change{To: ledger.Settled, Answer: []byte("another answer")})
	check("settled again", "reorganised")

	// The holder whose lease ran all the time lets go.
	c = claims["held"]
	rows["held"] = s.move(c, ledger.Change{To: ledger.Settled})
	if len(rows["held"].Request) == 0 || len(rows["held"].Answer) == 0 {
		s.Error("taken from under the holder")
	}
	check("let go", "held")

	s.advance(keep - fetchBy)
	check("after Keep", "until keep")
	if p := s.take("settled", ledger.Delivering).Payment; len(p.Request) != 0 || p.Body != "digest" || p.Transaction != rows["settled"].Transaction {
		s.Errorf("taken later: %+v", p)
	}
}
