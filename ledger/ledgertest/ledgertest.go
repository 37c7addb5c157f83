// Package ledgertest is the contract of ledger.Ledger as a test. Every store
// runs it, the ones here and those that others write:
//
//	func TestContract(t *testing.T) {
//		ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
//			return open(t.TempDir(), now)
//		})
//	}
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// lease is the lease of the tests, and keep how long a row must be remembered.
const (
	lease = 30 * time.Second
	keep  = 24 * time.Hour
)

// Run tests that what open returns keeps the contract. Each part of the test
// opens a ledger of its own, which must be empty and go by now. When it needs
// closing, open registers that with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) ledger.Ledger) {
	for _, part := range []struct {
		name string
		test func(*suite)
	}{
		{"Claim", testClaim},
		{"ClaimStartsAnew", testClaimStartsAnew},
		{"ClaimRace", testClaimRace},
		{"Take", testTake},
		{"TakeRace", testTakeRace},
		{"Moves", testMoves},
		{"Announce", testAnnounce},
		{"Doubt", testDoubt},
		{"Reorganisation", testReorganisation},
		{"Facts", testFacts},
		{"Fields", testFields},
		{"Tokens", testTokens},
		{"HoldEnds", testHoldEnds},
		{"LeaseEnds", testLeaseEnds},
		{"Renew", testRenew},
		{"MoveRace", testMoveRace},
		{"List", testList},
		{"ListBrief", testListBrief},
		{"ListOrder", testListOrder},
		{"ListStops", testListStops},
		{"ListAndCall", testListAndCall},
		{"Copies", testCopies},
		{"Bytes", testBytes},
		{"OtherKeys", testOtherKeys},
		{"Invalid", testInvalid},
		{"Cancelled", testCancelled},
		{"Keep", testKeep},
		{"Shed", testShed},
		{"Chains", testChains},
		{"Secret", testSecret},
		{"Stress", testStress},
	} {
		t.Run(part.name, func(t *testing.T) {
			c := &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
			part.test(&suite{T: t, clock: c, Ledger: open(t, c.Now)})
		})
	}
}

// clock is a clock that goes when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns the time.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// suite is one ledger under test.
type suite struct {
	*testing.T
	*clock
	ledger.Ledger
	cleaned int
}

// payment is a payment with all that a caller of Claim can give.
func (s *suite) payment(key ledger.Key) ledger.Payment {
	return ledger.Payment{
		Key:    key,
		Scheme: "exact", Network: "eip155:8453", Asset: "0xasset", PayTo: "0xpayee", Payer: "0xpayer",
		Amount:      "10000",
		ValidBefore: s.Now().Add(5 * time.Minute),
		Method:      "GET", Host: "shop.example", URL: "/articles/1?x=%2F",
		Line:        "gate 1, exact",
		Client:      "192.0.2.0/24",
		Identifier:  "pay_0123456789abcdef",
		Effects:     true,
		Body:        "12 application/json",
		Facilitator: "own",
		Request:     []byte(`{"paymentPayload":{}}`),
		FetchBy:     s.Now().Add(keep - time.Millisecond),
		Keep:        s.Now().Add(keep),
	}
}

// way leads from a fresh claim to a state.
func way(to ledger.State) []ledger.State {
	switch to {
	case ledger.Claimed:
		return nil
	case ledger.Settling, ledger.Released:
		return []ledger.State{to}
	case ledger.Settled, ledger.Refused, ledger.Unknown:
		return []ledger.State{ledger.Settling, to}
	case ledger.Delivering:
		return []ledger.State{ledger.Settling, ledger.Settled, to}
	case ledger.Delivered:
		return []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, to}
	}
	panic("no way to " + to)
}

// bring claims the key and moves it to the state. The claim has the row as it
// is then, and the token, which may be void.
func (s *suite) bring(key ledger.Key, to ledger.State) ledger.Claim {
	s.Helper()
	c := s.claim(key)
	for _, state := range way(to) {
		c.Payment = s.move(c, ledger.Change{To: state})
	}
	return c
}

func (s *suite) claim(key ledger.Key) ledger.Claim {
	s.Helper()
	c, err := s.Claim(s.Context(), s.payment(key), lease)
	if err != nil {
		s.Fatalf("Claim of %q: %v", key, err)
	}
	return c
}

func (s *suite) take(key ledger.Key, to ledger.State) ledger.Claim {
	s.Helper()
	c, err := s.Take(s.Context(), key, to, lease)
	if err != nil {
		s.Fatalf("Take of %q to %s: %v", key, to, err)
	}
	return c
}

func (s *suite) move(c ledger.Claim, ch ledger.Change) ledger.Payment {
	s.Helper()
	p, err := s.Move(s.Context(), c, ch)
	if err != nil {
		s.Fatalf("Move of %q to %s: %v", c.Payment.Key, ch.To, err)
	}
	return p
}

func (s *suite) get(key ledger.Key) ledger.Payment {
	s.Helper()
	p, err := s.Get(s.Context(), key)
	if err != nil {
		s.Fatalf("Get of %q: %v", key, err)
	}
	return p
}

func (s *suite) list(f ledger.Filter) []ledger.Payment {
	s.Helper()
	var all []ledger.Payment
	for p, err := range s.List(s.Context(), f) {
		if err != nil {
			s.Fatalf("List: %v", err)
		}
		all = append(all, p)
	}
	return all
}

// wantRow tests what the ledger has of the row. A free row it may have
// forgotten.
func (s *suite) wantRow(want ledger.Payment) {
	s.Helper()
	got, err := s.Get(s.Context(), want.Key)
	switch {
	case errors.Is(err, ledger.ErrNotFound) && ledger.Claimable(want, s.Now()):
	case err != nil:
		s.Errorf("Get of %q: %v", want.Key, err)
	default:
		s.wantEqual("the row", got, want)
	}
}

func (s *suite) wantEqual(what string, got, want ledger.Payment) {
	s.Helper()
	if diff := compare(got, want); diff != "" {
		s.Errorf("%s of %q:%s", what, want.Key, diff)
	}
}

// compare returns the fields in which two payments differ. Instants are compared
// as such, wherever their clocks hang.
func compare(got, want ledger.Payment) (diff string) {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		a, b := g.Field(i).Interface(), w.Field(i).Interface()
		equal := reflect.DeepEqual(a, b)
		switch b := b.(type) {
		case time.Time:
			equal = a.(time.Time).Equal(b)
		case []byte:
			equal = string(a.([]byte)) == string(b)
		}
		if !equal {
			diff += fmt.Sprintf("\n\t%s = %v, want %v", g.Type().Field(i).Name, a, b)
		}
	}
	return diff
}

// wantTaken tests that the error is a TakenError that shows the row.
func (s *suite) wantTaken(err error, row ledger.Payment) {
	s.Helper()
	taken, ok := errors.AsType[*ledger.TakenError](err)
	if !ok {
		s.Errorf("error = %v, want a TakenError: the row is %s", err, row.State)
		return
	}
	s.wantEqual("the taken row", taken.Payment, row)
}

func (s *suite) wantError(what string, got, want error) {
	s.Helper()
	if !errors.Is(got, want) {
		s.Errorf("%s: error = %v, want %v", what, got, want)
	}
}

// wantNoHold tests that the claim's token is worth nothing, and that to try it
// changes nothing.
func (s *suite) wantNoHold(c ledger.Claim) {
	s.Helper()
	before, missing := s.Get(s.Context(), c.Payment.Key)
	s.wantError("Renew", s.Renew(s.Context(), c, lease), ledger.ErrLost)
	for _, to := range ledger.States() {
		_, err := s.Move(s.Context(), c, ledger.Change{To: to, Proven: true, Reorganised: true})
		s.wantError("Move to "+string(to), err, ledger.ErrLost)
	}
	if missing == nil {
		s.wantRow(before)
	}
}

// race calls f in n goroutines at once and returns what they returned.
func race[T any](n int, f func(i int) T) []T {
	results := make([]T, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			results[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return results
}

// done is a context that is over before it begins.
func done(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
