package facilitator

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// scripted answers from a list, one answer a call, and panics when it is asked
// more often.
type scripted struct {
	verdicts    []any // Verdict, error, or "panic"
	settlements []any // Settlement, or "panic"
	supported   []any // x402.Supported, error, or "panic"
	calls       int
	onCall      func()
}

func next(list *[]any, s *scripted) any {
	s.calls++
	if s.onCall != nil {
		s.onCall()
	}
	a := (*list)[0]
	*list = (*list)[1:]
	if a == "panic" {
		panic("canary")
	}
	return a
}

func (s *scripted) Verify(context.Context, Request) (Verdict, error) {
	switch a := next(&s.verdicts, s).(type) {
	case Verdict:
		return a, nil
	case error:
		return Verdict{Valid: true}, a // an error counts, whatever stands beside it
	}
	return Verdict{}, nil
}

func (s *scripted) Settle(context.Context, Request) Settlement {
	return next(&s.settlements, s).(Settlement)
}

func (s *scripted) Supported(context.Context) (x402.Supported, error) {
	switch a := next(&s.supported, s).(type) {
	case x402.Supported:
		return a, nil
	case error:
		return x402.Supported{}, a
	}
	return x402.Supported{}, nil
}

func named(list ...*scripted) (order []Named) {
	for i, s := range list {
		order = append(order, Named{Name: string(rune('a' + i)), Facilitator: s})
	}
	return order
}

func TestVerify(t *testing.T) {
	yes, no := Verdict{Valid: true, Payer: "p"}, Verdict{Reason: "insufficient_funds"}
	down := &Error{Op: "verify", Code: CodeTimeout, Status: 503, RetryAfter: 9 * time.Second, Err: errors.New("hang")}
	nonsense := &Error{Op: "verify", Code: CodeInvalidAnswer, Status: 502, RetryAfter: 2 * time.Second, Err: errors.New("html")}

	for name, c := range map[string]struct {
		answers [][]any // of each facilitator
		want    Verdict
		by      string
		calls   []int
		code    x402.Code // of the error, "" for none
		status  int
		after   time.Duration
	}{
		"yes":                      {[][]any{{yes}, {}}, yes, "a", []int{1, 0}, "", 0, 0},
		"no is an answer":          {[][]any{{no}, {yes}}, no, "a", []int{1, 0}, "", 0, 0},
		"no answer, then yes":      {[][]any{{down}, {yes}}, yes, "b", []int{1, 1}, "", 0, 0},
		"no answer, then no":       {[][]any{{nonsense}, {no}}, no, "b", []int{1, 1}, "", 0, 0},
		"panic, then yes":          {[][]any{{"panic"}, {yes}}, yes, "b", []int{1, 1}, "", 0, 0},
		"nobody answers":           {[][]any{{down}, {nonsense}}, Verdict{}, "b", []int{1, 1}, CodeTimeout, 503, 2 * time.Second},
		"nobody answers, turned":   {[][]any{{nonsense}, {down}}, Verdict{}, "b", []int{1, 1}, CodeInvalidAnswer, 502, 2 * time.Second},
		"an error of another type": {[][]any{{errors.New("x")}}, Verdict{}, "a", []int{1}, CodeUnavailable, 503, 0},
		"only a panic":             {[][]any{{"panic"}}, Verdict{}, "a", []int{1}, CodeUnavailable, 503, 0},
		"nobody to ask":            {nil, Verdict{}, "", nil, CodeUnavailable, 503, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var list []*scripted
			for _, a := range c.answers {
				list = append(list, &scripted{verdicts: a})
			}
			got, by, err := Verify(t.Context(), named(list...), Request{})
			if got != c.want || by != c.by {
				t.Errorf("got %+v by %q, want %+v by %q", got, by, c.want, c.by)
			}
			for i, s := range list {
				if s.calls != c.calls[i] {
					t.Errorf("facilitator %d was asked %d times, want %d", i, s.calls, c.calls[i])
				}
			}
			checkError(t, err, c.code, c.status, c.after)
		})
	}
}

func checkError(t *testing.T, err error, code x402.Code, status int, after time.Duration) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("error %v", err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != code || e.Status != status || e.RetryAfter != after {
		t.Errorf("got %#v, want %s %d after %s", err, code, status, after)
	}
}

// A payer who has left needs no second opinion.
func TestVerifyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first := &scripted{verdicts: []any{context.Canceled}, onCall: cancel}
	second := &scripted{verdicts: []any{Verdict{Valid: true}}}
	if v, _, err := Verify(ctx, named(first, second), Request{}); err == nil || v.Valid {
		t.Errorf("got %+v", v)
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("%v hides its cause", err)
	}
	if second.calls != 0 {
		t.Error("the second was asked")
	}
}

func TestSettle(t *testing.T) {
	const network = "eip155:1"
	s := func(o Outcome, tx, reason string) Settlement {
		return Settlement{Outcome: o, Transaction: tx, Reason: reason, Network: network}
	}
	var (
		settled = s(Settled, "0xa", "")
		refused = s(Refused, "", "insufficient_funds")
		unsent  = s(Unsent, "", "facilitator_unavailable")
		unknown = s(Unknown, "", "facilitator_timeout")
		pending = s(Unknown, "0xp", "settlement_pending")
	)
	for name, c := range map[string]struct {
		answers [][]any
		want    Settlement
		by      string
		calls   []int
		waits   []time.Duration
	}{
		"settled":                     {[][]any{{settled}, {}}, settled, "a", []int{1, 0}, nil},
		"refused is an answer":        {[][]any{{refused}, {settled}}, refused, "a", []int{1, 0}, nil},
		"unsent, then settled":        {[][]any{{unsent}, {settled}}, settled, "b", []int{1, 1}, nil},
		"unsent, then refused":        {[][]any{{unsent}, {refused}}, refused, "b", []int{1, 1}, nil},
		"all unsent":                  {[][]any{{unsent}, {unsent}}, unsent, "b", []int{1, 1}, nil},
		"nobody to ask":               {nil, unsent, "", nil, nil},
		"unknown, then settled":       {[][]any{{unknown, settled}, {settled}}, settled, "a", []int{2, 0}, []time.Duration{repeatDelay}},
		"unknown, then refused":       {[][]any{{unknown, refused}, {settled}}, unknown, "a", []int{2, 0}, []time.Duration{repeatDelay}},
		"unknown, then unsent":        {[][]any{{unknown, unsent}, {settled}}, unknown, "a", []int{2, 0}, []time.Duration{repeatDelay}},
		"unknown, then unknown":       {[][]any{{unknown, unknown}, {settled}}, unknown, "a", []int{2, 0}, []time.Duration{repeatDelay}},
		"unknown, then pending":       {[][]any{{unknown, pending}, {}}, pending, "a", []int{2, 0}, []time.Duration{repeatDelay}},
		"pending, then settled":       {[][]any{{pending, settled}, {}}, settled, "a", []int{2, 0}, []time.Duration{0}},
		"pending, then pending":       {[][]any{{pending, pending}, {}}, pending, "a", []int{2, 0}, []time.Duration{0}},
		"pending, then unknown":       {[][]any{{pending, unknown}, {}}, pending, "a", []int{2, 0}, []time.Duration{0}},
		"pending, then refused":       {[][]any{{pending, refused}, {}}, pending, "a", []int{2, 0}, []time.Duration{0}},
		"pending, then another hash":  {[][]any{{pending, s(Unknown, "0xq", "settlement_pending")}, {}}, s(Unknown, "0xq", "settlement_pending"), "a", []int{2, 0}, []time.Duration{0}},
		"unsent, unknown, settled":    {[][]any{{unsent}, {unknown, settled}, {}}, settled, "b", []int{1, 2, 0}, []time.Duration{repeatDelay}},
		"unsent, unknown, refused":    {[][]any{{unsent}, {unknown, refused}, {settled}}, unknown, "b", []int{1, 2, 0}, []time.Duration{repeatDelay}},
		"panic, then settled":         {[][]any{{"panic", settled}, {}}, settled, "a", []int{2, 0}, []time.Duration{0}},
		"panic, then panic":           {[][]any{{"panic", "panic"}, {settled}}, s(Unknown, "", "settlement_pending"), "a", []int{2, 0}, []time.Duration{0}},
		"panic, then refused":         {[][]any{{"panic", refused}, {settled}}, s(Unknown, "", "settlement_pending"), "a", []int{2, 0}, []time.Duration{0}},
		"outcome that does not exist": {[][]any{{s(99, "", ""), settled}, {}}, settled, "a", []int{2, 0}, []time.Duration{repeatDelay}},
	} {
		t.Run(name, func(t *testing.T) {
			var list []*scripted
			for _, a := range c.answers {
				list = append(list, &scripted{settlements: a})
			}
			var waits []time.Duration
			wait := func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
			r := Request{Requirement: x402.Requirement{Network: network}}
			got, by := settle(t.Context(), named(list...), r, wait)
			got.Detail = ""
			if got.Outcome != c.want.Outcome || got.Transaction != c.want.Transaction || got.Reason != c.want.Reason ||
				got.Network != network || by != c.by {
				t.Errorf("got %+v by %q, want %+v by %q", got, by, c.want, c.by)
			}
			for i, s := range list {
				if s.calls != c.calls[i] {
					t.Errorf("facilitator %d was asked %d times, want %d", i, s.calls, c.calls[i])
				}
			}
			if !slices.Equal(waits, c.waits) {
				t.Errorf("waited %v, want %v", waits, c.waits)
			}
		})
	}
}

// Once the time is over nothing is sent any more, and what was known stays.
func TestSettleEndsWithItsContext(t *testing.T) {
	for name, outcome := range map[string]Outcome{"unknown": Unknown, "unsent": Unsent} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			first := &scripted{settlements: []any{Settlement{Outcome: outcome, Transaction: "0xp", Detail: "hung"}}, onCall: cancel}
			second := &scripted{}
			got, by := Settle(ctx, named(first, second), Request{})
			if got.Outcome != outcome || got.Transaction != "0xp" || by != "a" || !strings.Contains(got.Detail, "hung") {
				t.Errorf("got %+v by %q", got, by)
			}
			if first.calls != 1 || second.calls != 0 {
				t.Errorf("asked %d and %d times", first.calls, second.calls)
			}
		})
	}
}

// Nobody was there to be asked only if none was of all who might have been: what one of
// them says of a payment may be its payer's doing.
func TestSettleReachesOneOrNobody(t *testing.T) {
	away, busy := Settlement{Outcome: Unsent, Unreached: true}, Settlement{Outcome: Unsent}
	silent := &Breaker{}
	for range breakAfter {
		silent.noAnswer("", time.Now(), time.Minute)
	}
	for name, tc := range map[string]struct {
		order []Named
		want  bool
	}{
		"away":            {named(&scripted{settlements: []any{away}}), true},
		"both away":       {named(&scripted{settlements: []any{away}}, &scripted{settlements: []any{away}}), true},
		"left alone":      {[]Named{{Name: "a", Facilitator: &scripted{}, Breaker: silent}}, true},
		"busy":            {named(&scripted{settlements: []any{busy}}), false},
		"busy, then away": {named(&scripted{settlements: []any{busy}}, &scripted{settlements: []any{away}}), false},
		"nobody":          {nil, false},
	} {
		if got, _ := Settle(t.Context(), tc.order, Request{}); got.Outcome != Unsent || got.Unreached != tc.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// The log can tell what happened, step by step.
func TestSettleDetail(t *testing.T) {
	first := &scripted{settlements: []any{Settlement{Outcome: Unsent, Detail: "refused connection"}}}
	second := &scripted{settlements: []any{
		Settlement{Outcome: Unknown, Detail: "reset"},
		Settlement{Outcome: Refused, Detail: "nonce used"},
	}}
	got, _ := settle(t.Context(), named(first, second), Request{}, func(context.Context, time.Duration) error { return nil })
	const want = "a: refused connection; b: reset; repeated, refused: nonce used"
	if got.Detail != want {
		t.Errorf("got  %s\nwant %s", got.Detail, want)
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("status 500")
	err := &Error{Op: "verify", Code: CodeUnavailable, Status: http.StatusServiceUnavailable, Err: cause}
	if got, want := err.Error(), "facilitator verify: facilitator_unavailable: status 500"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("hides its cause")
	}
}

// TestErrorsOfSeveralAreSaidOnce: what was asked stands in the text once, and a code where it
// differs from the first.
func TestErrorsOfSeveralAreSaidOnce(t *testing.T) {
	cause := errors.New("status 500")
	first := &Error{Op: "verify", Code: CodeUnavailable, Err: cause}
	slow := &Error{Op: "verify", Code: CodeTimeout, Err: errors.New("no answer in 5s")}
	err := join("verify", []failure{{"own", first}, {"cdp", slow}, {"third", errors.New("panic: x")}})
	const want = "facilitator verify: facilitator_unavailable: own: status 500\ncdp: facilitator_timeout: no answer in 5s\nthird: panic: x"
	if got := err.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, cause) || !errors.Is(err, slow) {
		t.Error("hides its causes")
	}
}

func TestOutcomeString(t *testing.T) {
	for o, want := range map[Outcome]string{Unknown: "unknown", Settled: "settled", Refused: "refused", Unsent: "unsent", 42: "unknown"} {
		if got := o.String(); got != want {
			t.Errorf("%d: %q, want %q", o, got, want)
		}
	}
	var zero Settlement
	if zero.Outcome != Unknown {
		t.Error("a settlement that nobody decided must be unknown")
	}
}
