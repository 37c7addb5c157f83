package evm

import (
	"fmt"
	"math/big"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
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
	places    places
	// paid are the payers whose money has moved to a payee by a settlement of this
	// process. Each has paid to be in it, so nobody fills it for nothing.
	paid lately[common.Address]

	mu       sync.Mutex
	accounts map[common.Address]*account
}

// account is one of our accounts on one chain.
type account struct {
	key    *privateKey
	sender sender
	funds  // guarded by places.mu
}

// Destruct implements caddy.Destructor. Settlements under way keep what they use
// until they end; there is nothing to close.
func (*shared) Destruct() error { return nil }

// share takes what configs have in common of a chain out of the pool, or makes it.
func (f *Facilitator) share(c *chain) (*shared, error) {
	key := fmt.Sprint(c.id)
	if c.development {
		// Development chains share their ids, and come and go: another address
		// is another chain.
		key += ":" + c.nodes[0].host
	}
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return nil, err
	}
	f.held = append(f.held, key)
	return v.(*shared), nil
}

func newShared() *shared {
	return &shared{
		payments: payments{
			sent: make(map[claim]*record), unused: make(map[claim]sighting), failed: make(map[common.Address]failures),
		},
		approvals: approvals{running: make(map[common.Address]chan struct{}), spent: new(big.Int), ofStrangers: new(big.Int)},
		accounts:  make(map[common.Address]*account),
	}
}

// account returns the account of a key, always the same one: two senders would
// take each other's numbers.
func (s *shared) account(k *privateKey) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.accounts[k.address]
	if !ok {
		a = &account{key: k, sender: sender{turn: make(chan struct{}, 1)}}
		s.accounts[k.address] = a
	}
	return a
}
