package sqlite

import (
	"context"
	"errors"
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

// users counts the configs that use a file. What they share is in files.
var users = caddy.NewUsagePool()

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
	opening chan struct{} // is closed at the end of the attempt under way
	err     error         // of the latest attempt
	failed  time.Time
	used    bool // by a config
	closing bool // somebody waits for the end of the last request
}

const (
	// retryAfter is how long a ledger that could not be opened is left alone.
	retryAfter = time.Second
	// closeCheck is how often a ledger that no config uses is looked at, and
	// lingers how long it stays open when nobody holds a payment.
	closeCheck = 100 * time.Millisecond
	lingers    = time.Second
)

// use returns the ledger at path for a config, and its key in users.
func use(path string, o Options) (*shared, error) {
	pooled, _, err := users.LoadOrNew(path, func() (caddy.Destructor, error) {
		files.Lock()
		defer files.Unlock()
		s := files.byPath[path]
		if s == nil {
			s = &shared{path: path}
			files.byPath[path] = s
		}
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	s := pooled.(*shared)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.options = true, o
	if l := s.ledger.Load(); l != nil {
		l.SetOptions(o)
	}
	return s, nil
}

// Destruct implements caddy.Destructor: the last config has gone. Requests that
// it began go on.
func (s *shared) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = false
	s.closeLater()
	return nil
}

// closeLater closes the ledger when no request holds a payment and no config uses
// it. Under s.mu.
func (s *shared) closeLater() {
	if s.closing || s.used || s.ledger.Load() == nil {
		return
	}
	s.closing = true
	go func() {
		idle := time.Now()
		for range time.Tick(closeCheck) {
			if l := s.ledger.Load(); l != nil && l.Holders() > 0 {
				idle = time.Now()
			}
			if s.closeIdle(time.Since(idle) > lingers) {
				return
			}
		}
	}()
}

// closeIdle ends the wait of closeLater when the ledger is closed, or in use
// again.
func (s *shared) closeIdle(idle bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.used:
	case idle:
		s.closeNow()
	default:
		return false
	}
	s.closing = false
	return true
}

func (s *shared) closeNow() {
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
	s.mu.Lock()
	if l := s.ledger.Load(); l != nil {
		s.mu.Unlock()
		return l, nil
	}
	if s.err != nil && time.Since(s.failed) < retryAfter {
		err := s.err
		s.mu.Unlock()
		return nil, err
	}
	if s.opening == nil {
		s.opening = make(chan struct{})
		go s.open(s.options)
	}
	opening := s.opening
	s.mu.Unlock()
	select {
	case <-opening:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it is being opened", ledger.ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.ledger.Load(); l != nil {
		return l, nil
	}
	return nil, errors.Join(s.err, ledger.ErrUnavailable)
}

// open opens the ledger. It is not under the lock: it takes as long as it takes.
func (s *shared) open(o Options) {
	l, err := Open(s.path, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		o.Logger.Error("the ledger cannot be opened; payments are refused until it can", zap.Error(err))
		s.err, s.failed = fmt.Errorf("%w: %w", ledger.ErrUnavailable, err), time.Now()
	} else {
		l.SetOptions(s.options)
		s.err = nil
		s.ledger.Store(l)
		s.closeLater() // it may have been asked by a request of an old config
	}
	close(s.opening)
	s.opening = nil
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
			s.closeNow()
			s.mu.Unlock()
		}
	}
}
