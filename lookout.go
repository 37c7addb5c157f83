package paywall

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// lookout looks whether the chains still have the blocks of the latest payments,
// and sees to the payments of those that they do not have. Goods that are owed go
// out again only when their payment is settled again, which is for the reconciler.
// Where the goods are gone, the money is asked for again in the same words, while
// the authorization is good, and the payer pays first from now on.
type lookout struct {
	watch       *blockWatch
	ledger      *ledger.Guarded
	admission   *admission.Control
	facilitator func(name string) (facilitator.Named, bool)
	blocks      func(network string) []facilitator.Blocks
	witnesses   func(network string) []facilitator.Witness
	closed      func(network string) bool
	now         func() time.Time
	logger      *zap.Logger
}

// run looks until ctx ends.
func (l *lookout) run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for network, list := range l.watch.due(l.now()) {
			go l.lookAt(ctx, network, list)
		}
	}
}

// lookAt looks at some blocks of a network, and sees to the payments of those that
// are gone.
func (l *lookout) lookAt(ctx context.Context, network string, list []blockOf) {
	defer l.watch.rest(network)
	var seeing sync.WaitGroup
	defer seeing.Wait()
	free := make(chan struct{}, triedAtOnce)
	for _, at := range list {
		if ctx.Err() != nil {
			return
		}
		if l.closed(network) { // what another chain says is worth nothing
			l.watch.unclear(at, l.now())
			continue
		}
		if !l.watch.isGone(at) {
			has, err := l.hasBlock(ctx, at)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				l.logger.Debug("it cannot be told whether the chain still has a block", zap.String("network", network), zap.Uint64("block", at.Number), zap.Error(err))
				l.watch.unclear(at, l.now())
				return // the others later: nobody may be there to ask
			case has:
				l.watch.seen(at, l.now())
				continue
			}
			n := l.watch.takenBack(at, l.now())
			l.logger.Warn("a reorganisation of the chain has taken back a block with payments", zap.String("network", network),
				zap.Uint64("block", at.Number), zap.String("hash", at.Hash), zap.Int("payments", n))
		}
		seeing.Go(func() { l.seeTo(ctx, at, free) })
	}
}

// hasBlock asks those who can look, and survives their panics.
func (l *lookout) hasBlock(ctx context.Context, at blockOf) (has bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = errors.New("nobody can look at this network")
	for _, b := range l.blocks(at.network) {
		if has, err = b.HasBlock(ctx, at.network, at.Block); err == nil {
			break
		}
	}
	return has, err
}

// keepWatch takes what is watched out of the pool. It belongs to the ledger.
func (a *App) keepWatch() error {
	key := fmt.Sprintf("%x", sha256.Sum256(a.LedgerRaw))
	kept, _, err := watches.LoadOrNew(key, func() (caddy.Destructor, error) { return newBlockWatch(), nil })
	if err != nil {
		return err
	}
	a.blocks, a.watchKey = kept.(*blockWatch), key
	return nil
}

// watch watches the block of a payment that was settled, where it is known and
// somebody can look.
func (a *App) watch(row ledger.Payment, b facilitator.Block) {
	if b != (facilitator.Block{}) && len(a.settlers.Blocks(row.Network)) > 0 {
		a.blocks.add(row.Network, b, watched{key: row.Key, facilitator: row.Facilitator, request: row.Request}, time.Now(), a.logger)
	}
}

// watchBlocks looks at the blocks of the latest payments until ctx ends.
func (a *App) watchBlocks(ctx context.Context) {
	l := &lookout{
		watch:       a.blocks,
		ledger:      a.ledger,
		admission:   a.shared.admission,
		facilitator: a.settlers.Get,
		blocks:      a.settlers.Blocks,
		witnesses:   a.settlers.Witnesses,
		closed:      a.settlers.Closed,
		now:         time.Now,
		logger:      a.logger.Named("lookout"),
	}
	l.run(ctx)
}
