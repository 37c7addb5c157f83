package facilitator

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// supportedEvery is how often a good /supported is asked for again.
	supportedEvery = time.Hour
	// firstRetry and lastRetry bound the pause after a failure, while an earlier answer is in
	// use. While there is none, nothing is sold, and firstProbe and lastProbe do.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// firstWithin bounds how long requests wait for the first answer of a facilitator after
	// a start.
	firstWithin = 3 * time.Second
	// supportedTimeout bounds one try, retries inside the facilitator included.
	supportedTimeout = 2 * time.Minute
)

// Heard is what a facilitator has said that it can do. The zero value has heard nothing.
type Heard struct {
	answer atomic.Pointer[x402.Supported] // the last good one
	// moved: it has answered with a redirect since. What else it is asked is redirected too,
	// as a rule.
	moved atomic.Bool
}

func (h *Heard) isOpen() bool { return h.answer.Load() != nil && !h.moved.Load() }

// Source keeps one facilitator's /supported at hand, so that the start of Caddy never waits
// for it, and requests only for the first answer. Run does the asking; everything else reads
// the last good answer.
type Source struct {
	named  Named
	logger *zap.Logger
	heard  *Heard
	// tried is closed once the first answer is there, or is not worth waiting for.
	tried       chan struct{}
	waitNoMore  func()
	firstWithin time.Duration

	// asking makes concurrent refreshes take turns.
	asking sync.Mutex
	had    bool // a good answer; guarded by asking

	mu     sync.Mutex // guards what follows
	health health

	// Time and chance, so that tests need neither.
	sleep  sleeper
	jitter func(time.Duration) time.Duration
}

// health is what the log was last told of a facilitator.
type health int

const (
	untold health = iota
	up
	down
	moved
)

// NewSource returns a Source that has asked nothing yet. The last good answer is
// kept in heard, which the caller may let live longer than the Source, so
// that a reload does not begin from nothing; nil means that it need not live
// longer. Call Run in a goroutine of its own.
func NewSource(n Named, heard *Heard, logger *zap.Logger) *Source {
	if heard == nil {
		heard = new(Heard)
	}
	tried := make(chan struct{})
	return &Source{
		named:       n,
		logger:      logger.With(zap.String("facilitator", n.Name)),
		heard:       heard,
		tried:       tried,
		waitNoMore:  sync.OnceFunc(func() { close(tried) }),
		firstWithin: firstWithin,
		sleep:       Sleep,
		jitter:      jitter,
	}
}

// Open reports whether payments can be asked for that the facilitator is to settle: it has said
// what it can do, and not that it is elsewhere now.
func (s *Source) Open() bool { return s.heard.isOpen() }

// Await waits until the facilitator is open, or until it is known that it does not answer at
// once, for some seconds after Run has begun at most.
func (s *Source) Await(ctx context.Context) {
	if s.Open() {
		return
	}
	select {
	case <-s.tried:
	case <-ctx.Done():
	}
}

// Snapshot returns the last good answer, or nil if there was none yet. The
// pointer changes only when the answer does. What it points to is shared: do not
// change it. A facilitator that fails later keeps its last good answer, because
// offers that are out must stay payable.
func (s *Source) Snapshot() *x402.Supported { return s.heard.answer.Load() }

// Run asks at once, then every hour, and after a failure with growing pauses: between one
// second and one minute, or, while nothing can be sold for want of an answer, between a quarter
// of a second and three. It returns when ctx ends.
func (s *Source) Run(ctx context.Context) {
	defer s.waitNoMore()
	defer time.AfterFunc(s.firstWithin, s.waitNoMore).Stop()
	for failed := 0; ; {
		pause := supportedEvery
		err := s.Refresh(ctx)
		s.waitNoMore()
		if err == nil {
			failed = 0
		} else {
			first, last := firstProbe, lastProbe
			if s.Open() {
				first, last = firstRetry, lastRetry
			}
			pause = max(min(first<<min(failed, 10), last), retryAfter(err))
			failed++
		}
		if s.sleep(ctx, s.jitter(pause)) != nil {
			return
		}
	}
}

// Refresh asks once and keeps the answer. On an error the last good answer
// stays.
func (s *Source) Refresh(ctx context.Context) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	try, cancel := context.WithTimeout(ctx, supportedTimeout)
	defer cancel()
	got, err := supportedOne(try, s.named)
	if ctx.Err() != nil {
		return ctx.Err() // told to stop: that says nothing about the facilitator
	}
	if err == nil && s.keep(got) && speaksOnlyV1(got) {
		s.logger.Warn("facilitator speaks only version 1 of the protocol: nothing is sold through it, since version 2 is what payments are asked for with",
			zap.Int("kinds", len(got.Kinds)))
	}
	if err == nil || hasMoved(err) {
		s.heard.moved.Store(err != nil)
	}
	s.tell(err)
	return err
}

// keep stores a good answer, unless it is the same as the last one, and reports whether this
// Source has not had it before.
func (s *Source) keep(got x402.Supported) (news bool) {
	news = !s.had
	s.had = true
	if old := s.heard.answer.Load(); old != nil && reflect.DeepEqual(*old, got) {
		return news
	}
	s.heard.answer.Store(&got)
	return true
}

// speaksOnlyV1 reports whether a facilitator settles something, and nothing of version 2.
func speaksOnlyV1(s x402.Supported) bool {
	return len(s.Kinds) > 0 && !slices.ContainsFunc(s.Kinds, func(k x402.Kind) bool { return k.X402Version >= x402.V2 })
}

// tell logs a change of health, and only a change: a facilitator that is away
// for a day is one line, not fifteen hundred.
func (s *Source) tell(err error) {
	s.mu.Lock()
	before := s.health
	s.health = up
	switch {
	case hasMoved(err):
		s.health = moved
	case err != nil:
		s.health = down
	}
	now := s.health
	s.mu.Unlock()

	switch {
	case now == before:
	case now == moved:
		s.logger.Error("facilitator is elsewhere, and nothing is sold through it until its address in the config is the new one", zap.Error(err))
	case now == down:
		s.logger.Error("facilitator does not say what it supports", zap.Error(err),
			zap.Bool("earlier_answer_in_use", s.Open()))
	case before == down || before == moved:
		s.logger.Info("facilitator is back", zap.Int("kinds", len(s.Snapshot().Kinds)))
	default:
		s.logger.Info("facilitator is up", zap.Int("kinds", len(s.Snapshot().Kinds)))
	}
}

// supportedOne is Supported of one facilitator, with a panic turned into an
// error.
func supportedOne(ctx context.Context, n Named) (got x402.Supported, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = unavailable("supported", panicked(p))
		}
	}()
	return n.Supported(ctx)
}

// retryAfter is how long the facilitator asked to be left alone.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return min(e.RetryAfter, MaxRetryAfter)
	}
	return 0
}

// jitter shortens or lengthens d by up to a tenth, so that many gateways that
// started together do not ask together for ever.
func jitter(d time.Duration) time.Duration {
	spread := d / 10
	if spread <= 0 {
		return d
	}
	return d - spread + rand.N(2*spread)
}
