package settlement

import (
	"context"
	"sync"
	"time"
)

// inFlight is the work under way in this process that may move money or records that it
// has. It belongs to no config: a reload must not cut it short.
var inFlight flights

// flights counts work under way. Unlike a sync.WaitGroup it may be waited for
// while more begins: at exit, requests of earlier configs still run.
type flights struct {
	mu      sync.Mutex
	count   int
	waiting chan struct{} // closed when count is 0; made by landed
}

// Go runs f in a goroutine of its own, which counts until f returns.
func (fl *flights) Go(f func()) {
	fl.mu.Lock()
	fl.count++
	fl.mu.Unlock()
	go func() {
		defer func() {
			fl.mu.Lock()
			defer fl.mu.Unlock()
			if fl.count--; fl.count == 0 && fl.waiting != nil {
				close(fl.waiting)
				fl.waiting = nil
			}
		}()
		f()
	}()
}

// landed returns a channel that is closed when nothing is under way.
func (fl *flights) landed() <-chan struct{} {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.count == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if fl.waiting == nil {
		fl.waiting = make(chan struct{})
	}
	return fl.waiting
}

// Drain waits at exit, after all servers have stopped, until no settlement is
// under way, so that none is left without a recorded result. What is left all the
// same is in the ledger, and is asked about after the next start.
func Drain(ctx context.Context) {
	select {
	case <-inFlight.landed():
	case <-ctx.Done():
	case <-time.After(Within):
	}
}
