package remote

import (
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

const (
	// clockMatters is a difference of clocks that is told. A payment lives for five minutes.
	clockMatters = time.Minute
	// dateWithin is how long an answer may take whose date is believed.
	dateWithin = 10 * time.Second
	// warnEvery is how often the log is told.
	warnEvery = int64(time.Minute / time.Second)
)

// clock is what the dates of answers (RFC 9110 6.6.1) say of our own clock.
type clock struct {
	ahead  atomic.Int64 // how far the facilitator's is ahead, in nanoseconds
	warned atomic.Int64 // when the log was last told, in Unix seconds
}

// saw reads the date of an answer.
func (c *clock) saw(header http.Header, asked, now time.Time, logger *zap.Logger) {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil || now.Sub(asked) > dateWithin || header.Get("Age") != "" { // a cache's date is an old one
		return
	}
	ahead := date.Sub(asked.Add(now.Sub(asked) / 2)).Round(time.Second)
	if ahead.Abs() < clockMatters {
		c.ahead.Store(0)
		return
	}
	c.ahead.Store(int64(ahead))
	if last := c.warned.Load(); now.Unix()-last >= warnEvery && c.warned.CompareAndSwap(last, now.Unix()) {
		logger.Warn("the clocks of this machine and of the facilitator differ, so payments can be refused that are good: synchronise this one (NTP)",
			zap.Duration("facilitator_ahead", ahead))
	}
}

// ClockAhead implements facilitator.Clocked.
func (f *Facilitator) ClockAhead() time.Duration {
	if f.shared == nil {
		return 0
	}
	return time.Duration(f.shared.clock.ahead.Load())
}

var _ facilitator.Clocked = (*Facilitator)(nil)
