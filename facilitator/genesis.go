package facilitator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A network's name and its chain id say little: a development chain has those of
// the chain that it imitates. So the ledger remembers the first block of each
// network, and where nodes can be asked for it, they are compared. A network
// that is another chain is closed: its prices are not offered, and payments in
// doubt are not judged by what it says. Loading a config waits for none of this.

const (
	// chainEvery is how often a network is looked at again.
	chainEvery = time.Hour
	// chainClosedEvery is how often one that is closed is.
	chainClosedEvery = time.Minute
	// firstChainRetry and lastChainRetry bound the pause while nobody can tell.
	firstChainRetry = time.Second
	lastChainRetry  = time.Minute
	// chainTimeout bounds one look.
	chainTimeout = 30 * time.Second
)

// wrongChains are the networks of a facilitator's nodes that are other chains than
// those that the ledger knows by their names.
type wrongChains struct {
	mu      sync.Mutex
	wrong   atomic.Pointer[[]string]
	changes atomic.Uint64
}

func (c *wrongChains) isWrong(network string) bool {
	wrong := c.wrong.Load()
	return wrong != nil && slices.Contains(*wrong, network)
}

// set says whether a network is wrong, and reports whether that is new.
func (c *wrongChains) set(network string, wrong bool) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isWrong(network) == wrong {
		return false
	}
	var now []string
	if before := c.wrong.Load(); before != nil {
		now = slices.DeleteFunc(slices.Clone(*before), func(n string) bool { return n == network })
	}
	if wrong {
		now = append(now, network)
	}
	c.wrong.Store(&now)
	c.changes.Add(1)
	return true
}

// Closed says whether a network is closed: some facilitator's nodes have shown
// that it is another chain.
func (s *Set) Closed(network string) bool {
	for _, m := range s.members {
		if m.wrong.isWrong(network) {
			return true
		}
	}
	return false
}

// Changes counts how often a network was closed or opened again.
func (s *Set) Changes() (n uint64) {
	for _, w := range s.wrong {
		n += w.changes.Load()
	}
	return n
}

// WatchChains compares the networks of all facilitators with the ledger, until
// ctx ends. It returns after the first look at each, or when that takes too
// long.
func (s *Set) WatchChains(ctx context.Context, book ledger.Chains, logger *zap.Logger) {
	var looked sync.WaitGroup
	for _, m := range s.members {
		nodes, ok := m.Facilitator.(Chains)
		if !ok {
			continue
		}
		for _, network := range nodes.Seen() {
			looked.Add(1)
			w := &chainWatch{
				nodes: nodes, network: network, book: book, wrong: m.wrong,
				logger: logger.With(zap.String("facilitator", m.Name), zap.String("network", network)),
			}
			go w.run(ctx, looked.Done)
		}
	}
	done := make(chan struct{})
	go func() { looked.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(chainTimeout):
	case <-ctx.Done():
	}
}

// chainWatch looks after one network of one facilitator.
type chainWatch struct {
	nodes   Chains
	network string
	book    ledger.Chains
	wrong   *wrongChains
	logger  *zap.Logger
}

// run looks until ctx ends; it calls looked after the first time.
func (w *chainWatch) run(ctx context.Context, looked func()) {
	retry := firstChainRetry
	for first := true; ; first = false {
		err := w.look(ctx)
		pause := chainEvery
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ledger.ErrGenesis):
			pause = chainClosedEvery
			if w.wrong.set(w.network, true) {
				w.logger.Error("a network is another chain than the one that the ledger has payments of, so its prices are closed: "+
					"correct the rpc URLs, or give this chain a ledger of its own", zap.Error(err))
			}
		case err != nil:
			pause = retry
			retry = min(2*retry, lastChainRetry)
			w.logger.Debug("the first block of a network is not known", zap.Error(err))
		default:
			retry = firstChainRetry
			if w.wrong.set(w.network, false) {
				w.logger.Info("a network is the one that the ledger knows again, and open")
			}
		}
		if first {
			looked()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// look asks the nodes, and the ledger. It survives their panics.
func (w *chainWatch) look(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	hashes, err := w.nodes.Genesis(ctx, w.network)
	if err != nil {
		return err
	}
	if len(hashes) != 1 { // one of them is wrong, and must not go on record
		return fmt.Errorf("%w: its nodes begin with different blocks: %v", ledger.ErrGenesis, hashes)
	}
	return w.book.RememberGenesis(ctx, w.network, hashes[0])
}
