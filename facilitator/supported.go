package facilitator

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// supportedEvery is how often a good /supported is asked for again.
	supportedEvery = time.Hour
	// firstRetry and lastRetry bound the pause after a failure.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// supportedTimeout bounds one try, retries inside the facilitator included.
	supportedTimeout = 2 * time.Minute
)

// Source keeps one facilitator's /supported at hand, so that neither the start
// of Caddy nor a request ever waits for it. Run does the asking; everything else
// reads the last good answer.
type Source struct {
	named    Named
	logger   *zap.Logger
	snapshot *atomic.Pointer[x402.Supported]

	// asking makes concurrent refreshes take turns.
	asking sync.Mutex

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
)

// NewSource returns a Source that has asked nothing yet. The last good answer is
// kept in snapshot, which the caller may let live longer than the Source, so
// that a reload does not begin from nothing; nil means that it need not live
// longer. Call Run in a goroutine of its own.
func NewSource(n Named, snapshot *atomic.Pointer[x402.Supported], logger *zap.Logger) *Source {
	if snapshot == nil {
		snapshot = new(atomic.Pointer[x402.Supported])
	}
	return &Source{
		named:    n,
		logger:   logger.With(zap.String("facilitator", n.Name)),
		snapshot: snapshot,
		sleep:    Sleep,
		jitter:   jitter,
	}
}

// Snapshot returns the last good answer, or nil if there was none yet. The
// pointer changes only when the answer does. What it points to is shared: do not
// change it. A facilitator that fails later keeps its last good answer, because
// offers that are out must stay payable.
func (s *Source) Snapshot() *x402.Supported { return s.snapshot.Load() }

// Run asks at once, then every hour, and after a failure with growing pauses
// between one second and one minute. It returns when ctx ends.
func (s *Source) Run(ctx context.Context) {
	retry := firstRetry
	for {
		pause := supportedEvery
		if err := s.Refresh(ctx); err != nil {
			pause = max(retry, retryAfter(err))
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
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
	if err == nil {
		s.keep(got)
	}
	s.tell(err)
	return err
}

// keep stores a good answer, unless it is the same as the last one.
func (s *Source) keep(got x402.Supported) {
	if old := s.snapshot.Load(); old != nil && reflect.DeepEqual(*old, got) {
		return
	}
	s.snapshot.Store(&got)
}

// tell logs a change of health, and only a change: a facilitator that is away
// for a day is one line, not fifteen hundred.
func (s *Source) tell(err error) {
	s.mu.Lock()
	before := s.health
	s.health = up
	if err != nil {
		s.health = down
	}
	now := s.health
	s.mu.Unlock()

	switch {
	case now == before:
	case now == down:
		s.logger.Error("facilitator does not say what it supports", zap.Error(err),
			zap.Bool("earlier_answer_in_use", s.Snapshot() != nil))
	case before == down:
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
