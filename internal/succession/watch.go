package succession

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// lookEvery is how often a former ledger is looked at while something is left in it,
	// lookRarely after that, and lookAgain how soon after it could not be.
	lookEvery  = time.Minute
	lookRarely = time.Hour
	lookAgain  = time.Second
	// lookWithin bounds a look, and looksAt is how many rows it counts.
	lookWithin = 30 * time.Second
	looksAt    = 10_000
	// payable is the longest life that an authorization can have when it is taken.
	payable = ledger.MaxLife
	// endless is how long one is remembered that does not say when it ends.
	endless = ledger.KeepWithoutEnd
)

// left is what is left to do with the payments of a former ledger.
type left struct {
	owed, doubt, held int
	lately            bool // something was sold whose authorization may still be good
}

// Check refuses former ledgers of which there is nothing where the config says that they
// are: a name that is misspelled is no ledger without debts.
func (c *Config) Check() error {
	for _, f := range c.formers {
		if l, ok := f.Ledger.(interface{ Exists() error }); ok && f.named {
			if err := l.Exists(); err != nil {
				return fmt.Errorf("former_ledger: %w", err)
			}
		}
	}
	return nil
}

// Watch tells the operator what there is to know of former ledgers, until ctx ends.
func (c *Config) Watch(ctx context.Context) {
	for _, f := range c.formers {
		go c.watch(ctx, f)
	}
}

func (c *Config) watch(ctx context.Context, f *former) {
	logger := c.logger.With(zap.String("former", ledger.Name(f.Ledger)))
	said, failed := false, false
	for ctx.Err() == nil {
		pause := lookEvery
		switch l, err := look(ctx, f.Ledger, time.Now()); {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			if pause = lookAgain; !failed {
				logger.Error("a former ledger cannot be looked into", zap.Error(err))
			}
			failed = true
		default:
			failed = false
			if !said {
				f.announce(l, logger)
			}
			said = true
			idle := l == left{}
			if l == (left{lately: l.lately}) {
				pause = lookRarely // which looks through many rows
			}
			if idle && !f.idle.Load() {
				f.done(logger)
			}
			f.idle.Store(idle)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (f *former) announce(l left, logger *zap.Logger) {
	counts := []zap.Field{zap.Int("owed", l.owed), zap.Int("in_doubt", l.doubt), zap.Int("held", l.held)}
	if f.named {
		logger.Info("what is owed and in doubt in a former ledger is seen to", counts...)
		return
	}
	logger.Warn("a reload has changed the ledger. The former one is kept while this process runs: what is owed there can be fetched, what is in doubt is found out, "+
		"and what was used buys nothing. To keep it after a restart, put it into the global options with the word former_ledger", counts...)
}

func (f *former) done(logger *zap.Logger) {
	if f.named {
		logger.Info("nothing is owed, in doubt or payable in a former ledger any more; its former_ledger can be taken out of the global options")
		return
	}
	logger.Info("nothing is owed, in doubt or payable in a former ledger any more; the next reload lets it go")
}

// look counts what is left to do in a former ledger.
func look(ctx context.Context, l ledger.Ledger, now time.Time) (found left, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	open := ledger.Filter{
		States: []ledger.State{ledger.Claimed, ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Unknown},
		Limit:  looksAt, Brief: true,
	}
	for row, err := range l.List(ctx, open) {
		if err != nil {
			return found, err
		}
		switch {
		case ledger.Held(row, now):
			found.held++
		case row.State == ledger.Unknown, row.State == ledger.Settling:
			found.doubt++
		case row.State == ledger.Claimed, !row.FetchBy.IsZero() && now.After(row.FetchBy): // nobody can have it
		default:
			found.owed++
		}
	}
	found.lately, err = has(ctx, l, ledger.Filter{Since: now.Add(-payable), Brief: true}, func(row ledger.Payment) bool {
		return row.State != ledger.Released && row.State != ledger.Refused
	})
	if err == nil && found == (left{}) {
		sold := ledger.Filter{States: []ledger.State{ledger.Settled, ledger.Delivering, ledger.Delivered}, Since: now.Add(-endless), Brief: true}
		found.lately, err = has(ctx, l, sold, func(row ledger.Payment) bool { return row.ValidBefore.IsZero() && now.Before(row.Keep) })
	}
	return found, err
}

// has says whether a ledger has such a row.
func has(ctx context.Context, l ledger.Ledger, f ledger.Filter, such func(ledger.Payment) bool) (bool, error) {
	for row, err := range l.List(ctx, f) {
		if err != nil || such(row) {
			return err == nil, err
		}
	}
	return false, nil
}
