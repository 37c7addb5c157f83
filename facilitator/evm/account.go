package evm

import (
	"fmt"
	"math/big"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
)

// accounts keeps what outlives a reload: for each account on each chain the
// numbers of its transactions, and the payments that it has sent.
var accounts = caddy.NewUsagePool()

// account is one of our accounts on one chain.
type account struct {
	sender    sender
	payments  payments
	approvals approvals
}

// Destruct implements caddy.Destructor. Settlements under way keep the account
// until they end; there is nothing to close.
func (*account) Destruct() error { return nil }

// account takes our account on a chain out of the pool, or makes it.
func (f *Facilitator) account(c *chain) (*account, error) {
	key := fmt.Sprintf("%d:%s", c.id, c.key.address)
	if c.development {
		// Development chains share their ids, and come and go: another address
		// is another chain.
		key += ":" + c.nodes[0].host
	}
	v, _, err := accounts.LoadOrNew(key, func() (caddy.Destructor, error) { return newAccount(), nil })
	if err != nil {
		return nil, err
	}
	f.keys = append(f.keys, key)
	return v.(*account), nil
}

func newAccount() *account {
	return &account{
		sender: sender{turn: make(chan struct{}, 1), slots: make(chan struct{}, maxInFlight)},
		payments: payments{
			sent: make(map[claim]*record), unused: make(map[claim]sighting), failed: make(map[common.Address]failures),
		},
		approvals: approvals{running: make(map[common.Address]chan struct{}), spent: new(big.Int)},
	}
}
