package purchase

import (
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
)

// A settlement that ends unsent or refused is on the payer's account where the upstream
// has run for it, whoever still waits for it.
func TestSettlementsAreOnThePayersAccount(t *testing.T) {
	for _, c := range []struct {
		name       string
		outcome    facilitator.Outcome
		ran, doubt bool
		times      int // until the payer pays first; 0 is never
	}{
		{"refused after a run", facilitator.Refused, true, false, 1},
		{"refused before a run", facilitator.Refused, false, false, 0},
		{"refused when asked for again", facilitator.Refused, true, true, 0},
		{"unsent after a run", facilitator.Unsent, true, false, 5},
		{"unsent before a run", facilitator.Unsent, false, false, 0},
		{"unknown after a run", facilitator.Unknown, true, false, 5},
		{"unknown before a run", facilitator.Unknown, false, false, 0},
		{"settled", facilitator.Settled, true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			control := admission.New()
			payer := customer{payer: "0x", wallet: "0x", tab: "0x", ran: c.ran, doubt: c.doubt, in: control, now: time.Now}
			for n := 1; n <= 10; n++ {
				payer.remember(facilitator.Settlement{Outcome: c.outcome})
				if got, want := control.Distrusted.Has(payer.payer, time.Now()), c.times > 0 && n >= c.times; got != want {
					t.Fatalf("after %d: pays first: %v", n, got)
				}
			}
		})
	}
}

// Where nobody was there to settle, what the upstream had begun for a payer by then counts
// once, however much it is and however often it happens within an hour: it is not his doing.
func TestAnOutageCountsOnce(t *testing.T) {
	control, now := admission.New(), time.Now()
	payer := customer{payer: "0x", wallet: "0x", tab: "0x", ran: true, since: now, in: control, now: func() time.Time { return now }}
	outage := facilitator.Settlement{Outcome: facilitator.Unsent, Unreached: true}
	for n := 1; n <= 5; n++ {
		for range 20 {
			if payer.remember(outage); control.Distrusted.Has("0x", now) != (n == 5) {
				t.Fatalf("in hour %d: pays first: %v", n, n != 5)
			}
			now = now.Add(time.Minute)
			payer.since = now // it was over, and begins again
		}
		now = now.Add(time.Hour)
		payer.since = now
	}
}
