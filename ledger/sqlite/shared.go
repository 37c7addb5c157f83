package sqlite

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func init() {
	caddy.OnExit(closeAll)
}

// files are the ledgers of this process by path. They stay: a config that comes
// back finds its ledger, also while requests of the one before still use it.
var files = struct {
	sync.Mutex
	byPath map[string]*shared
}{byPath: make(map[string]*shared)}

// shared is a ledger that configs share. It is opened when it is first asked.
type shared struct {
	path   string
	ledger atomic.Pointer[Ledger]

	mu      sync.Mutex
	options Options
	users   int // configs
	// existing: it was open before.
	existing bool
	attempt  *attempt
}

// attempt is one to open the ledger. ledger and err are set when it is over.
type attempt struct {
	over   chan struct{}
	ledger *Ledger
	err    error
	failed time.Time // under shared.mu
}

const (
	// retryAfter is how long a ledger that could not be opened is left alone.
	retryAfter = time.Second
	// closeCheck is how often a ledger that no config uses is looked at, and
	// lingers how long it stays open when nobody holds a payment.
	closeCheck = 100 * time.Millisecond
	lingers    = time.Second
)

// use returns the ledger at path for a config, which leaves it at its end.
func use(path string, o Options) *shared {
	files.Lock()
	defer files.Unlock()
	s := files.byPath[path]
	if s == nil {
		s = &shared{path: path}
		files.byPath[path] = s
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	s.options = o
	if l := s.ledger.Load(); l != nil {
		l.SetOptions(o)
	}
	return s
}

// leave is for a config that ends. Requests that it began go on.
func (s *shared) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if l := s.ledger.Load(); l != nil && s.users == 0 {
		go s.closeUnused(l)
	}
}

// closeUnused closes the ledger when no request holds a payment, unless a config uses it
// again.
func (s *shared) closeUnused(l *Ledger) {
	idle := time.Now()
	for range time.Tick(closeCheck) {
		if l.Holders() > 0 {
			idle = time.Now()
		}
		if s.closeIf(l, time.Since(idle) > lingers) {
			return
		}
	}
}

// closeIf closes the ledger if it is idle. It says whether nobody need look any more.
func (s *shared) closeIf(l *Ledger, idle bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users > 0 || s.ledger.Load() != l {
		return true
	}
	if idle {
		s.close()
	}
	return idle
}

func (s *shared) close() {
	l := s.ledger.Swap(nil)
	if l == nil {
		return
	}
	if err := l.Close(); err != nil {
		s.options.Logger.Error("closing the ledger", zap.String("file", s.path), zap.Error(err))
	}
}

// get returns the ledger, opened. It waits for that until ctx ends.
func (s *shared) get(ctx context.Context) (*Ledger, error) {
	if l := s.ledger.Load(); l != nil {
		return l, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a := s.opening()
	select {
	case <-a.over:
		return a.ledger, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it is being opened", ledger.ErrUnavailable)
	}
}

// opening returns the attempt to open the ledger that is under way, or has just failed.
func (s *shared) opening() *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attempt
	if a == nil || !a.failed.IsZero() && time.Since(a.failed) >= retryAfter {
		a = &attempt{over: make(chan struct{})}
		s.attempt = a
		go s.open(a, s.options)
	}
	return a
}

// open opens the ledger. It is not under the lock: it takes as long as it takes.
func (s *shared) open(a *attempt, o Options) {
	defer close(a.over)
	s.mu.Lock()
	o.existing = s.existing
	s.mu.Unlock()
	l, err := Open(s.path, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		o.Logger.Error("the ledger cannot be opened; payments are refused until it can", zap.Error(err))
		a.err, a.failed = fmt.Errorf("%w: %w", ledger.ErrUnavailable, err), time.Now()
		return
	}
	l.SetOptions(s.options)
	a.ledger, s.attempt, s.existing = l, nil, true
	s.ledger.Store(l)
	if s.users == 0 { // a request of an old config has asked
		go s.closeUnused(l)
	}
}

// closeAll closes the ledgers of a process that ends, when nobody holds a
// payment any more. A ledger that is not closed in time is as one of a process that was
// killed: what is committed is safe, and the rest is milliseconds old.
func closeAll(ctx context.Context) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	files.Lock()
	defer files.Unlock()
	for _, s := range files.byPath {
		for l := s.ledger.Load(); l != nil && l.Holders() > 0 && ctx.Err() == nil; l = s.ledger.Load() {
			select {
			case <-ctx.Done():
			case <-time.After(closeCheck):
			}
		}
		if ctx.Err() == nil {
			s.mu.Lock()
			s.close()
			s.mu.Unlock()
		}
	}
}
