package evm

import (
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"
)

// pool keeps what outlives a reload, for each chain.
var pool = caddy.NewUsagePool()

// shared is what all configs that settle on one chain have in common: the
// payments that were sent, whichever of our accounts sent them, and the numbers of
// the accounts. An account that has left the config stays as long as the chain is
// in use: what it has sent is still on its way, and its key may come back.
type shared struct {
	payments  payments
	approvals approvals
	standings *standings
	// losses are counted in the chain's smallest unit, and in gas where no budget is
	// given.
	losses, gasLosses *losses
	queue             *queue

	mu       sync.Mutex
	accounts map[common.Address]*account
}

// account is one of our accounts on one chain.
type account struct {
	key     *privateKey
	sender  sender
	batches batches
	funds   // guarded by queue.mu
}

// Destruct implements caddy.Destructor. Settlements under way keep what they use
// until they end; there is nothing to close.
func (*shared) Destruct() error { return nil }

// share takes what configs have in common of a chain out of the pool, or makes it.
func (f *Facilitator) share(c *settler) (*shared, error) {
	key := fmt.Sprint(c.ID)
	if c.Development {
		// Development chains share their ids, and come and go: another address
		// is another chain.
		key += ":" + c.Nodes[0].Host
	}
	v, _, err := f.pool.LoadOrNew(key, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return nil, err
	}
	f.held = append(f.held, key)
	return v.(*shared), nil
}

func newShared() *shared {
	known := newStandings()
	return &shared{
		payments:  payments{sent: make(map[claim]*record), unused: make(map[claim]sighting), done: make(map[doneKey]done)},
		standings: known,
		losses:    newLosses(known), gasLosses: newLosses(known),
		queue: newQueue(known),
		approvals: approvals{
			running: make(map[common.Address]chan struct{}), strange: make(map[common.Address]bool), spent: new(big.Int), ofStrangers: new(big.Int),
			unpaid: lru.NewCache[gift, struct{}](maxStandings), late: lru.NewCache[common.Address, time.Time](maxStandings),
		},
		accounts: make(map[common.Address]*account),
	}
}

// unended are the accounts besides some others of which something is on its way, or not
// read yet: those of keys that a reload has removed.
func (s *shared) unended(besides []*account) (list []*account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if !slices.Contains(besides, a) && a.sender.isUnended() {
			list = append(list, a)
		}
	}
	return list
}

// account returns the account of a key, always the same one: two senders would
// take each other's numbers.
func (s *shared) account(k *privateKey) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.accounts[k.address]
	if !ok {
		a = &account{key: k, sender: sender{taken: make(chan struct{}, 1)}}
		s.accounts[k.address] = a
	}
	return a
}
