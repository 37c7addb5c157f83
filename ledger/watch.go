package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A ledger that does not work is noticed before anybody signs: it is asked every second in
// which nobody else asks it, and prices are closed while it fails. That it can be read does
// not show that it can be written, on a full disk say; so it is also down for a while, and
// longer each time, after some changes in a row have failed.

const (
	probeEvery = time.Second
	// maxFailures is how many rows may fail to be changed, with none between them that is:
	// one may be to blame itself.
	maxFailures = 3
	// maxRemembered is how many failed rows are told apart.
	maxRemembered = 32
	// longestPause is how long at most it is left alone that cannot be written.
	longestPause = 30 * time.Second
)

// probeKey is of no payment.
const probeKey Key = "probe"

// condition is how a ledger fares.
type condition struct {
	mu     sync.Mutex
	heard  time.Time // when it last answered
	unread error     // why it could not be asked last, or nil
	failed []Key     // the rows that could not be changed, since one was
	unkept error     // why not
	until  time.Time // so long it is left alone
	told   bool      // the log knows that it is down
}

// changed takes note of what became of a change to a row.
func (c *condition) changed(key Key, err error, now time.Time) {
	if answered(err) {
		c.answers(true, now)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.failed, key) {
		return // who insists on it does not count again
	}
	c.failed, c.unkept = append(c.failed, key), err
	if over := len(c.failed) - maxFailures; over >= 0 {
		c.until = now.Add(min(longestPause, time.Second<<min(over, 10)))
	}
	if len(c.failed) > maxRemembered {
		c.failed = c.failed[1:]
	}
}

// asked takes note of what a question was answered.
func (c *condition) asked(err error, now time.Time) {
	if answered(err) {
		c.answers(false, now)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = err
}

func (c *condition) answers(change bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.unread = now, nil
	if change {
		c.failed, c.unkept, c.until = nil, nil, time.Time{}
	}
}

// answered says whether an error, or none, shows that the ledger works.
func answered(err error) bool {
	return isAnswer(err) || errors.Is(err, ErrFull)
}

// down says why the ledger is down, nil if it is not, and how long to wait.
func (c *condition) down(now time.Time) (wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.unread != nil:
		return max(c.until.Sub(now), 2*probeEvery), c.unread
	case now.Before(c.until):
		return c.until.Sub(now), c.unkept
	}
	return 0, nil
}

// quiet says whether nobody has heard of the ledger lately.
func (c *condition) quiet(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread != nil || now.Sub(c.heard) >= probeEvery
}

// tell notes whether the ledger is down, and reports whether the log does not know that yet.
func (c *condition) tell(down bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := c.told
	c.told = down
	return told != down
}

// Down says why the ledger can sell nothing now, nil if it can, and when to look again. It
// asks nobody; see Watch.
func (g *Guarded) Down() (wait time.Duration, err error) { return g.condition.down(time.Now()) }

// HasAnswered says whether the ledger has ever answered. In one that has not, nothing was
// sold by this process.
func (g *Guarded) HasAnswered() bool {
	g.condition.mu.Lock()
	defer g.condition.mu.Unlock()
	return !g.condition.heard.IsZero()
}

// Watch asks the ledger whether it works, until ctx ends, and tells the log when that
// changes.
func (g *Guarded) Watch(ctx context.Context, logger *zap.Logger) {
	ticks := time.NewTicker(probeEvery)
	defer ticks.Stop()
	for ctx.Err() == nil {
		if g.condition.quiet(time.Now()) {
			err := guard(ctx, CallWithin, func(ctx context.Context) error {
				_, err := g.ledger.Get(ctx, probeKey)
				return err
			})
			g.condition.asked(err, time.Now())
		}
		switch _, err := g.Down(); {
		case !g.condition.tell(err != nil):
		case err != nil:
			logger.Error("the ledger does not work, so priced paths answer 503 until it does", zap.Error(err))
		default:
			logger.Info("the ledger works again")
		}
		select {
		case <-ctx.Done():
		case <-ticks.C:
		}
	}
}
