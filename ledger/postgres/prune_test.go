package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// aged is a ledger whose clock the test sets.
type aged struct {
	*Ledger
	*testing.T
	s      *server
	schema string
	now    time.Time
}

func newAged(t *testing.T, o Options) *aged {
	s := theServer(t)
	a := &aged{T: t, s: s, schema: s.newSchema(t), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	o.Now = func() time.Time { return a.now }
	a.Ledger = s.gateway(t, a.schema, o)
	return a
}

// bring claims a key and moves it on, through the given states.
func (a *aged) bring(key ledger.Key, way ...ledger.State) {
	a.Helper()
	c, err := a.Claim(a.Context(), ledger.Payment{Key: key, Keep: a.now.Add(24 * time.Hour), Host: fmt.Sprint(way)}, lease)
	if err != nil {
		a.Fatal(err)
	}
	for _, to := range way {
		if _, err := a.Move(a.Context(), c, ledger.Change{To: to}); err != nil {
			a.Fatal(err)
		}
	}
}

func (a *aged) wantStates(when, want string) {
	a.Helper()
	if err := a.prune(make(chan struct{})); err != nil {
		a.Fatal(err)
	}
	got := ""
	for p, err := range a.List(a.Context(), ledger.Filter{}) {
		if err != nil {
			a.Fatal(err)
		}
		got += " " + string(p.State)
	}
	if got != want {
		a.Errorf("%s:%s, want%s", when, got, want)
	}
}

// TestPrune: what is of no more use goes, when it is; what is owed stays.
func TestPrune(t *testing.T) {
	a := newAged(t, Options{KeepFinished: 30 * 24 * time.Hour})
	for key, way := range map[ledger.Key][]ledger.State{
		"claimed": {}, "released": {ledger.Released},
		"refused":    {ledger.Settling, ledger.Refused},
		"settling":   {ledger.Settling},
		"unknown":    {ledger.Settling, ledger.Unknown},
		"settled":    {ledger.Settling, ledger.Settled},
		"delivering": {ledger.Settling, ledger.Settled, ledger.Delivering},
		"delivered":  {ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered},
	} {
		a.bring(key, way...)
	}
	states := func() map[string]int {
		a.Helper()
		if err := a.prune(make(chan struct{})); err != nil {
			a.Fatal(err)
		}
		n := map[string]int{}
		for p, err := range a.List(a.Context(), ledger.Filter{}) {
			if err != nil {
				a.Fatal(err)
			}
			n[string(p.State)]++
		}
		return n
	}
	gone := map[string]bool{"released": true}
	check := func(when string) {
		a.Helper()
		got := states()
		for _, s := range ledger.States() {
			if want := !gone[string(s)]; (got[string(s)] == 1) != want {
				a.Errorf("%s: %s is there: %v", when, s, !want)
			}
		}
	}
	check("at once")
	a.now = a.now.Add(lease + staleClaim - time.Second)
	check("before the claim is stale")
	a.now = a.now.Add(time.Second)
	gone["claimed"] = true
	check("when the claim is stale")
	a.now = a.now.Add(30 * 24 * time.Hour)
	gone["refused"] = true
	check("after keep_finished, before that after Keep")
	a.now = a.now.Add(24 * time.Hour)
	gone["delivered"] = true
	check("after keep_finished and Keep")
	a.now = a.now.Add(10 * 365 * 24 * time.Hour)
	check("after ten years")
}

// TestPruneSteps: many go in small steps, and of refused ones the latest stay.
func TestPruneSteps(t *testing.T) {
	a := newAged(t, Options{})
	a.bring("first")
	for _, state := range []string{"delivered", "refused"} {
		a.s.exec(t, a.schema, fmt.Sprintf(`INSERT INTO paywall_payments (id, created, updated, keep, status, runs, doubt,
				state, payer, amount, facilitator, transaction, reason, key, scheme, network, asset, pay_to,
				method, host, client, identifier, body, url)
			SELECT gen_random_uuid(), '2026-11-22 12:00Z'::timestamptz + n * interval '1 second', now(),
				CASE WHEN '%[1]s' = 'delivered' THEN '2020-01-01Z'::timestamptz END, 0, 0, false,
				'%[1]s', '', '', '', '', '', 'k' || n, '', '', '', '', '', '', '', '', '', ''
			FROM generate_series(1, %[2]d) n`, state, maxRefused+1200))
	}
	if err := a.prune(make(chan struct{})); err != nil {
		t.Fatal(err)
	}
	if n := a.s.rows(t, a.schema, "state = 'delivered'"); n != 0 {
		t.Errorf("%d delivered", n)
	}
	if n := a.s.rows(t, a.schema, "state = 'refused'"); n != maxRefused {
		t.Errorf("%d refused", n)
	}
	if n := a.s.rows(t, a.schema, "state = 'refused' AND key = 'k1200'"); n != 0 {
		t.Error("an older refused one stayed")
	}
}

// TestOnePrunes: while another gateway prunes, this one does not.
func TestOnePrunes(t *testing.T) {
	a := newAged(t, Options{})
	a.bring("claimed")
	a.now = a.now.Add(time.Hour)
	other, err := pgx.Connect(t.Context(), a.s.dsn(a.schema))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(lockPruning)); err != nil {
		t.Fatal(err)
	}
	a.wantStates("while another prunes", " claimed")
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", int64(lockPruning)); err != nil {
		t.Fatal(err)
	}
	a.wantStates("after that", "")
}

// TestShed: of what was paid for and cannot be fetched any more, the row has neither
// the signed request nor the kept answer; of all others it has. It goes in steps.
func TestShed(t *testing.T) {
	a := newAged(t, Options{})
	bring := func(key ledger.Key, fetchBy time.Time, way ...ledger.State) {
		t.Helper()
		p := ledger.Payment{Key: key, FetchBy: fetchBy, Keep: a.now.Add(24 * time.Hour), Request: []byte("signed")}
		c, err := a.Claim(t.Context(), p, lease)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range way {
			if _, err := a.Move(t.Context(), c, ledger.Change{To: to, Answer: []byte("kept")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	soon := a.now.Add(time.Hour)
	bring("settled", soon, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("delivering", soon, ledger.Settling, ledger.Settled, ledger.Delivering)
	bring("until keep", time.Time{}, ledger.Settling, ledger.Settled, ledger.Settled)
	bring("unknown", soon, ledger.Settling, ledger.Unknown)
	bring("delivered", soon, ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered)
	a.s.exec(t, a.schema, fmt.Sprintf(`INSERT INTO paywall_payments (id, created, updated, fetch_by, status, runs, doubt,
			state, payer, amount, facilitator, transaction, reason, key, scheme, network, asset, pay_to,
			method, host, client, identifier, body, url, answer)
		SELECT gen_random_uuid(), now(), now(), '2026-11-22 13:00Z', 0, 0, false,
			'settled', '', '', '', '', '', 'many ' || n, '', '', '', '', '', '', '', '', '', '', 'kept'
		FROM generate_series(1, %d) n`, 2*pruneStep+1))
	for _, c := range []struct {
		after time.Duration
		want  map[string]bool // who has it still
	}{
		{time.Hour - time.Second, map[string]bool{"settled": true, "delivering": true, "until keep": true, "unknown": true, "many 1": true}},
		{time.Second, map[string]bool{"until keep": true, "unknown": true}},
		{23 * time.Hour, map[string]bool{"unknown": true}},
	} {
		a.now = a.now.Add(c.after)
		if err := a.prune(make(chan struct{})); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"settled", "delivering", "until keep", "unknown", "delivered", "many 1"} {
			kept := a.s.rows(t, a.schema, fmt.Sprintf("key = '%s' AND (request IS NOT NULL OR answer IS NOT NULL)", key)) == 1
			if kept != c.want[key] {
				t.Errorf("at %s: the row %s has something: %v", a.now, key, kept)
			}
		}
	}
	if n := a.s.rows(t, a.schema, "key LIKE 'many %' AND answer IS NOT NULL"); n != 0 {
		t.Errorf("%d of many have their answer", n)
	}
}
