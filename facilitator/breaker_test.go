package facilitator

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

func onNetwork(network string) Request {
	return Request{Requirement: x402.Requirement{Network: network}}
}

func isOpen(b *Breaker, network string) bool {
	_, open := b.Open(network, "exact", time.Now())
	return open
}

// What opens a breaker: calls in a row without an answer, and nothing else.
func TestBreakerOpens(t *testing.T) {
	down := &Error{Op: "verify", Code: CodeUnavailable, Status: 503, Err: errors.New("refused")}
	slow := &Error{Op: "verify", Code: CodeTimeout, Status: 503, Err: errors.New("hang")}
	nonsense := &Error{Op: "verify", Code: CodeInvalidAnswer, Status: 502, Err: errors.New("html")}
	yes, no := Verdict{Valid: true}, Verdict{Reason: "insufficient_funds"}
	for name, c := range map[string]struct {
		answers []any
		open    bool
	}{
		"three without an answer":      {[]any{down, slow, "panic"}, true},
		"an error of another type":     {[]any{errors.New("x"), errors.New("x"), errors.New("x")}, true},
		"two":                          {[]any{down, down}, false},
		"a yes in between":             {[]any{down, down, yes, down, down}, false},
		"a no in between":              {[]any{down, down, no, down, down}, false},
		"nonsense, which payers cause": {[]any{nonsense, nonsense, nonsense, nonsense}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := &Breaker{}
			s := &scripted{verdicts: c.answers}
			order := []Named{{Name: "a", Facilitator: s, Breaker: b}}
			for range c.answers {
				_, _, _ = Verify(t.Context(), order, onNetwork("eip155:1"))
			}
			if isOpen(b, "eip155:1") != c.open {
				t.Errorf("open: %v", !c.open)
			}
			if isOpen(b, "eip155:2") {
				t.Error("another network suffers")
			}
			if !c.open {
				return
			}
			calls := s.calls
			_, name, err := Verify(t.Context(), order, onNetwork("eip155:1"))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != CodeUnavailable || e.Status != 503 || e.RetryAfter < time.Second || name != "a" || s.calls != calls {
				t.Errorf("%v from %q, %d calls", err, name, s.calls-calls)
			}
			if got, _ := Settle(t.Context(), order, onNetwork("eip155:1")); got.Outcome != Unsent || !got.Unreached || s.calls != calls {
				t.Errorf("%+v, %d calls", got, s.calls-calls)
			}
		})
	}
}

// Neither a payer who leaves nor a payment that we could not judge says anything
// about the facilitator.
func TestBreakerIgnoresPayers(t *testing.T) {
	b := &Breaker{}
	ctx, leave := context.WithCancel(t.Context())
	down := errors.New("cut off")
	s := &scripted{verdicts: []any{down, down, down, down, down, down, down}, onCall: func() { leave() }}
	order := []Named{{Name: "a", Facilitator: s, Breaker: b}}
	for range 4 {
		_, _, _ = Verify(ctx, order, onNetwork("eip155:1"))
	}
	r := onNetwork("eip155:1")
	r.Unproven = true
	for range 3 {
		_, _, _ = Verify(t.Context(), order, r)
	}
	if isOpen(b, "eip155:1") {
		t.Error("open")
	}
}

// A settle that was not sent counts; one of which nobody knows does not: the chain
// may be slow. The next facilitator is asked in place of one that is left alone.
func TestBreakerAndSettle(t *testing.T) {
	unsent, unknown := Settlement{Outcome: Unsent}, Settlement{Outcome: Unknown}
	b := &Breaker{}
	dark := &scripted{settlements: []any{unknown, unknown, unknown, unknown, unknown, unknown}}
	for range 3 { // each is repeated once
		settle(t.Context(), []Named{{Name: "a", Facilitator: dark, Breaker: b}}, onNetwork("eip155:1"), noSleep)
	}
	if isOpen(b, "eip155:1") {
		t.Error("open after unknown outcomes")
	}
	away := &scripted{settlements: []any{unsent, unsent, unsent}}
	for range 3 {
		settle(t.Context(), []Named{{Name: "a", Facilitator: away, Breaker: b}}, onNetwork("eip155:1"), noSleep)
	}
	if !isOpen(b, "eip155:1") {
		t.Fatal("not open")
	}
	second := &scripted{settlements: []any{Settlement{Outcome: Settled, Transaction: "0x1"}}, verdicts: []any{Verdict{Valid: true}}}
	order := []Named{{Name: "a", Facilitator: away, Breaker: b}, {Name: "b", Facilitator: second, Breaker: &Breaker{}}}
	if v, name, err := Verify(t.Context(), order, onNetwork("eip155:1")); !v.Valid || name != "b" || err != nil {
		t.Errorf("%+v %q %v", v, name, err)
	}
	if s, name := Settle(t.Context(), order, onNetwork("eip155:1")); s.Outcome != Settled || name != "b" {
		t.Errorf("%+v %q", s, name)
	}
	if away.calls != 3 {
		t.Errorf("%d calls", away.calls)
	}
}

func noSleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// The pauses between probes grow, up to a bound, and keep what the facilitator
// asks for. After a good probe one failure opens again.
func TestBreakerProbes(t *testing.T) {
	b, now := &Breaker{}, time.Now()
	due := func() time.Duration {
		at, _ := b.next()
		return at.Sub(now)
	}
	fail := func(n int, after time.Duration) {
		for range n {
			b.noAnswer("n", now, after)
		}
	}
	fail(breakAfter, 0)
	if got := due(); got != firstProbe {
		t.Errorf("first probe after %s", got)
	}
	for range 10 {
		now, _ = b.next()
		b.probed(errors.New("still away"), now)
	}
	if got := due(); got != lastProbe {
		t.Errorf("later probe after %s", got)
	}
	now, _ = b.next()
	b.probed(&Error{RetryAfter: 20 * time.Second}, now)
	if got := due(); got != 20*time.Second {
		t.Errorf("probe after %s, asked for 20s", got)
	}
	if wait, _ := b.Open("n", "exact", now); wait != 20*time.Second {
		t.Errorf("a payer is told %s", wait)
	}
	b.probed(nil, now)
	if _, open := b.Open("n", "exact", now); !open {
		t.Error("a probe from before its time closed it")
	}
	now, _ = b.next()
	b.probed(nil, now)
	if b.Networks() != 0 {
		t.Fatal("a good probe did not close it")
	}
	fail(1, 0)
	if got := due(); b.Networks() != 1 || got != lastProbe {
		t.Errorf("one failure after a probe: %d open, probe after %s", b.Networks(), got)
	}
	now, _ = b.next()
	b.probed(nil, now)
	b.answered("n")
	fail(breakAfter-1, 0)
	if b.Networks() != 0 {
		t.Error("an answer is forgotten")
	}
	fail(1, 0)
	if got := due(); got != firstProbe {
		t.Errorf("after an answer the first probe comes after %s", got)
	}
	var none *Breaker
	none.noAnswer("n", now, 0)
	none.answered("n")
	if none.Networks() != 0 || isOpen(none, "n") {
		t.Error("nil opens")
	}
}

// Watch closes it by itself, also for one who begins to watch later.
func TestBreakerWatch(t *testing.T) {
	for _, early := range []bool{true, false} {
		b := &Breaker{}
		probed := make(chan struct{})
		s := &scripted{supported: []any{errors.New("away"), "panic", x402.Supported{}, x402.Supported{}}}
		s.onCall = func() {
			if s.calls == 3 {
				close(probed)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		watch := func() {
			go func() {
				b.Watch(ctx, Named{Name: "a", Facilitator: s}, zap.NewNop())
				close(ended)
			}()
		}
		if early {
			watch()
			time.Sleep(10 * time.Millisecond) // either order must do
		}
		for range breakAfter {
			b.noAnswer("n", time.Now(), 0)
		}
		if !early {
			watch()
		}
		<-probed
		for b.Networks() != 0 {
			time.Sleep(time.Millisecond)
		}
		stop()
		<-ended
	}
}

// One payer whose payments a facilitator cannot stand, or who sends too many, closes it
// for nobody; three in a row who meet that do.
func TestOnePayersFailuresOpenNothing(t *testing.T) {
	b, now := &Breaker{}, time.Now()
	limited := &Error{Op: "verify", Code: CodeUnavailable, Err: errors.New("status 429")}
	for range 10 * breakAfter {
		b.verified(of("one", ""), limited, now)
	}
	if _, open := b.Open("n", "exact", now); open {
		t.Error("one payer opened it")
	}
	b.verified(of("two", ""), limited, now)
	b.verified(of("somebody", ""), nil, now) // an answer in between
	b.verified(of("three", ""), limited, now)
	if _, open := b.Open("n", "exact", now); open {
		t.Error("it has answered meanwhile")
	}
	b.verified(of("four", ""), limited, now)
	b.verified(of("five", ""), limited, now)
	if _, open := b.Open("n", "exact", now); !open {
		t.Error("three payers in a row did not open it")
	}
}

// of is a payment of a payer, from a client network.
func of(payer, from string) Request {
	r := onNetwork("n")
	r.Payer, r.From = payer, from
	return r
}

// A stranger who knows what the facilitator cannot stand opens it once, and then no
// more, with all wallets of the world; other networks that meet a failure do.
func TestOneNetworkDoesNotKeepItOpen(t *testing.T) {
	for name, failure := range map[string]error{
		"a status":   &Error{Op: "verify", Code: CodeUnavailable, Err: errors.New("status 500")},
		"a time-out": &Error{Op: "verify", Code: CodeTimeout, Err: errors.New("hangs")},
	} {
		b, now, wallets := &Breaker{}, time.Now(), 0
		open := func() bool { _, open := b.Open("n", "exact", now); return open }
		attack := func(from string, wanted bool) {
			t.Helper()
			for range 20 * breakAfter {
				wallets++
				b.verified(of(strconv.Itoa(wallets), from), failure, now)
				b.settled(of(strconv.Itoa(wallets), from), Unsent, now)
			}
			if open() != wanted {
				t.Errorf("%s from %s: open: %v", name, from, !wanted)
			}
		}
		probe := func() {
			now, _ = b.next()
			b.probed(nil, now)
		}
		for range 10 * breakAfter {
			b.verified(of("one wallet", "here"), failure, now)
			b.settled(of("one wallet", "here"), Unsent, now)
		}
		if open() {
			t.Errorf("%s: one wallet opened it", name)
		}
		attack("here", true)
		probe()
		attack("here", false)
		b.verified(of("honest", "elsewhere"), nil, now)
		attack("here", false)
		attack("there", true)
		probe()
		attack("there", false)
		attack("here", false)

		// When it is really away the probe says so, and nobody is suspected.
		now = now.Add(suspectFor + 1)
		attack("here", true)
		now, _ = b.next()
		b.probed(errors.New("away"), now)
		probe()
		attack("here", true)
	}
}

// Where nobody can read who pays, one client network opens nothing; three do, and are
// suspected if the facilitator was well.
func TestOneNetworkOfUnknownPayersOpensNothing(t *testing.T) {
	b, now := &Breaker{}, time.Now()
	failure := &Error{Op: "verify", Code: CodeUnavailable, Err: errors.New("status 500")}
	attack := func(wanted bool, from ...string) {
		t.Helper()
		for range 10 * breakAfter {
			for _, network := range from {
				b.verified(of("", network), failure, now)
				b.settled(of("", network), Unsent, now)
			}
		}
		if _, open := b.Open("n", "exact", now); open == wanted {
			return
		}
		t.Errorf("%d networks: open: %v", len(from), !wanted)
	}
	attack(false, "one")
	attack(true, "one", "two", "three")
	now, _ = b.next()
	b.probed(nil, now)
	attack(false, "one", "two", "three")
	attack(true, "four") // after a probe one more is enough
}

// That nobody listens is nobody's fault.
func TestNoConnectionCountsEachTime(t *testing.T) {
	b, now := &Breaker{}, time.Now()
	refused := &Error{Op: "verify", Code: CodeUnavailable, Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}
	for range breakAfter {
		b.verified(of("one", "here"), refused, now)
	}
	if _, open := b.Open("n", "exact", now); !open {
		t.Error("not open")
	}
}

// What is remembered of suspects has a bound.
func TestSuspectsHaveABound(t *testing.T) {
	c := &circuit{}
	for i := range 3 * maxSuspects {
		c.sources = []string{strconv.Itoa(i), "net " + strconv.Itoa(i)}
		c.suspect(time.Now())
	}
	if n := len(c.suspects); n > maxSuspects+2*breakAfter {
		t.Errorf("%d", n)
	}
}
