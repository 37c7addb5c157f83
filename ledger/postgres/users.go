package postgres

import (
	"fmt"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// users counts the calls that are under way.
type users struct {
	mu     sync.Mutex
	active int
	last   time.Time
	closed bool
	// quiet is for how long nobody must have come before a retired ledger closes.
	quiet time.Duration
}

func (u *users) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ErrClosed)
	}
	u.active++
	return nil
}

func (u *users) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active--
	u.last = time.Now()
}

// closeIdle closes if nobody is there and nobody was for a while.
func (u *users) closeIdle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == 0 && time.Since(u.last) >= u.quiet {
		u.closed = true
	}
	return u.closed
}

// Retire closes the ledger when its last user is gone: no call is under way,
// none was for a while, and no lease runs that was given out here. Requests
// that began before a reload finish with the ledger that they began with.
func (l *Ledger) Retire() {
	go func() {
		for {
			time.Sleep(l.users.quiet / 60)
			l.mu.Lock()
			live := l.held.live()
			l.mu.Unlock()
			if !live && l.users.closeIdle() {
				l.Close()
				return
			}
		}
	}()
}

// Close ends the connections once the batches under way are done. Later calls
// get ErrClosed.
func (l *Ledger) Close() {
	l.users.mu.Lock()
	l.users.closed = true
	l.users.mu.Unlock()
	l.pruner.close()
	l.opening.close()
}
