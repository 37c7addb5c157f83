package facilitator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

func kinds(networks ...string) x402.Supported {
	s := x402.Supported{}
	for _, n := range networks {
		s.Kinds = append(s.Kinds, x402.Kind{X402Version: 2, Scheme: "exact", Network: n})
	}
	return s
}

// source is a Source of a script, with a log, that notes the pauses of Run and
// ends when the script does.
func source(t *testing.T, answers ...any) (s *Source, pauses *[]time.Duration, logs *observer.ObservedLogs, run func()) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	script := &scripted{supported: answers}
	s = NewSource(Named{Name: "f", Facilitator: script}, nil, zap.New(core))
	s.jitter = func(d time.Duration) time.Duration { return d }
	pauses = new([]time.Duration)
	s.sleep = func(_ context.Context, d time.Duration) error {
		*pauses = append(*pauses, d)
		if len(script.supported) == 0 {
			return context.Canceled
		}
		return nil
	}
	return s, pauses, logs, func() { s.Run(t.Context()) }
}

func messages(logs *observer.ObservedLogs) (list []string) {
	for _, e := range logs.All() {
		list = append(list, e.Message)
	}
	return list
}

func TestSourcePauses(t *testing.T) {
	down := errors.New("down")
	later := &Error{RetryAfter: 20 * time.Second, Err: down}
	moved := &Error{Code: CodeInvalidAnswer, Err: &MovedError{Status: 308, To: "https://new.example"}}
	muchLater := &Error{RetryAfter: time.Hour, Err: down}
	good := kinds("eip155:1")
	const s = time.Second
	for name, c := range map[string]struct {
		answers []any
		want    []time.Duration
	}{
		"good":           {[]any{good, good}, []time.Duration{time.Hour, time.Hour}},
		"never heard of": {[]any{down, down, down, down, down, down}, []time.Duration{s / 4, s / 2, s, 2 * s, 3 * s, 3 * s}},
		"down":           {[]any{good, down, down, down, down, down, down, down, down}, []time.Duration{time.Hour, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}},
		"down, then up":  {[]any{down, down, good, down}, []time.Duration{s / 4, s / 2, time.Hour, s}},
		"moved":          {[]any{good, moved, moved, good, down}, []time.Duration{time.Hour, s / 4, s / 2, time.Hour, s}},
		"a panic":        {[]any{"panic", good}, []time.Duration{s / 4, time.Hour}},
		"asked to wait":  {[]any{later, later}, []time.Duration{20 * s, 20 * s}},
		"asked too much": {[]any{muchLater}, []time.Duration{MaxRetryAfter}},
	} {
		t.Run(name, func(t *testing.T) {
			_, pauses, _, run := source(t, c.answers...)
			run()
			if !slices.Equal(*pauses, c.want) {
				t.Errorf("got %v, want %v", *pauses, c.want)
			}
		})
	}
}

func TestSourceKeepsTheLastGoodAnswer(t *testing.T) {
	s, _, _, _ := source(t, errors.New("down"), kinds("eip155:1"), errors.New("down"), kinds("eip155:1"), kinds("eip155:2"))
	steps := []struct {
		network string
		changed bool
	}{
		{"", false},
		{"eip155:1", true},
		{"eip155:1", false},
		{"eip155:1", false},
		{"eip155:2", true},
	}
	var before *x402.Supported
	for i, want := range steps {
		_ = s.Refresh(t.Context())
		got := s.Snapshot()
		switch {
		case want.network == "" && got != nil:
			t.Errorf("step %d: got %v, want nothing", i, got)
		case want.network != "" && (got == nil || got.Kinds[0].Network != want.network):
			t.Errorf("step %d: got %v, want %s", i, got, want.network)
		}
		if (got != before) != want.changed {
			t.Errorf("step %d: pointer %p after %p", i, got, before)
		}
		before = got
	}
}

// One line per change of health, not per try.
func TestSourceLogsChanges(t *testing.T) {
	down, good := errors.New("down"), kinds("eip155:1")
	moved := &Error{Code: CodeInvalidAnswer, Err: &MovedError{Status: 308, To: "https://new.example"}}
	const isDown, isUp, isBack = "facilitator does not say what it supports", "facilitator is up", "facilitator is back"
	const isMoved = "facilitator is elsewhere, and nothing is sold through it until its address in the config is the new one"
	for name, c := range map[string]struct{ answers, want []any }{
		"up":                                {[]any{good, good, kinds("eip155:2")}, []any{isUp}},
		"down":                              {[]any{down, down, down}, []any{isDown}},
		"elsewhere":                         {[]any{moved, moved, good}, []any{isMoved, isBack}},
		"up, elsewhere, down":               {[]any{good, moved, down, moved}, []any{isUp, isMoved, isDown, isMoved}},
		"down, up":                          {[]any{down, down, good, good}, []any{isDown, isBack}},
		"up, down, up":                      {[]any{good, down, down, good}, []any{isUp, isDown, isBack}},
		"down from the beginning, up, down": {[]any{down, good, down, down}, []any{isDown, isBack, isDown}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, logs, run := source(t, c.answers...)
			run()
			var want []string
			for _, w := range c.want {
				want = append(want, w.(string))
			}
			if got := messages(logs); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A snapshot that lives longer than its Source spares a reload the waiting.
func TestSourceBeginsWithWhatIsKnown(t *testing.T) {
	var kept Heard
	known := kinds("eip155:1")
	kept.answer.Store(&known)
	s := NewSource(Named{Name: "f", Facilitator: &scripted{supported: []any{kinds("eip155:1"), kinds("eip155:2")}}}, &kept, zap.NewNop())
	if s.Snapshot() != &known {
		t.Errorf("got %v", s.Snapshot())
	}
	_ = s.Refresh(t.Context())
	if s.Snapshot() != &known {
		t.Error("the same answer counts as a change")
	}
	_ = s.Refresh(t.Context())
	if kept.answer.Load() != s.Snapshot() || kept.answer.Load() == &known {
		t.Error("the new answer is not kept")
	}
}

// The end of a config is not the end of a facilitator.
func TestSourceStopsInSilence(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	core, logs := observer.New(zapcore.DebugLevel)
	hang := &scripted{supported: []any{context.Canceled}, onCall: cancel}
	s := NewSource(Named{Name: "f", Facilitator: hang}, nil, zap.New(core))
	s.Run(ctx) // returns
	if logs.Len() != 0 {
		t.Errorf("log: %q", messages(logs))
	}
}

// steady always answers the same.
type steady struct {
	scripted
	answer x402.Supported
}

func (s *steady) Supported(context.Context) (x402.Supported, error) { return s.answer, nil }

func TestSourceFromManyGoroutines(t *testing.T) {
	s := NewSource(Named{Name: "f", Facilitator: &steady{answer: kinds("eip155:1")}}, nil, zap.NewNop())
	var wg sync.WaitGroup
	var seen sync.Map
	for range 8 {
		wg.Go(func() {
			_ = s.Refresh(t.Context())
			seen.Store(s.Snapshot(), true)
		})
	}
	wg.Wait()
	seen.Range(func(snapshot, _ any) bool {
		if snapshot != s.Snapshot() {
			t.Error("the same answer counts as a change")
		}
		return true
	})
}

func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 9, time.Second, time.Hour} {
		for range 100 {
			if got := jitter(d); got < d-d/10 || got > d+d/10 {
				t.Fatalf("jitter(%s) = %s", d, got)
			}
		}
	}
}

// TestSourceWarnsOfVersion1: a facilitator with nothing of version 2 sells nothing, which is said
// once for a load and each time that it says so anew.
func TestSourceWarnsOfVersion1(t *testing.T) {
	old := x402.Supported{Kinds: []x402.Kind{{X402Version: 1, Scheme: "exact", Network: "base"}}}
	both := x402.Supported{Kinds: append(kinds("eip155:1").Kinds, old.Kinds...)}
	for name, c := range map[string]struct {
		answers []any
		want    int
	}{
		"only version 1":   {[]any{old, old, old}, 1},
		"both":             {[]any{both, both}, 0},
		"nothing":          {[]any{x402.Supported{}}, 0},
		"version 2 leaves": {[]any{both, old, old}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, logs, run := source(t, c.answers...)
			run()
			if got := logs.FilterMessageSnippet("only version 1").Len(); got != c.want {
				t.Errorf("said %d times", got)
			}
		})
	}
}

// TestSourceIsOpenOnceHeard: who was never heard of, or has moved, is not open.
func TestSourceIsOpenOnceHeard(t *testing.T) {
	down := errors.New("down")
	moved := &Error{Code: CodeInvalidAnswer, Err: &MovedError{Status: 308}}
	steps := []struct {
		answer any
		open   bool
	}{{down, false}, {moved, false}, {kinds("eip155:1"), true}, {down, true}, {moved, false}, {down, false}, {kinds("eip155:1"), true}}
	var answers []any
	for _, step := range steps {
		answers = append(answers, step.answer)
	}
	s, _, _, _ := source(t, answers...)
	if s.Open() {
		t.Error("open before it was heard of")
	}
	for i, step := range steps {
		_ = s.Refresh(t.Context())
		if s.Open() != step.open {
			t.Errorf("step %d: open: %v", i, s.Open())
		}
	}
}

// TestNobodyWaitsForASilentFacilitator: requests wait for the first answer after a start, or
// until it is not worth waiting for; never again.
func TestNobodyWaitsForASilentFacilitator(t *testing.T) {
	never := make(chan struct{})
	hang := &scripted{supported: []any{errors.New("down")}, onCall: func() { <-never }}
	s := NewSource(Named{Name: "f", Facilitator: hang}, nil, zap.NewNop())
	s.firstWithin = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	s.Await(context.Background()) // returns
	if s.Open() {
		t.Error("it is open")
	}
	cancel()
	close(never)
	<-ended
}
