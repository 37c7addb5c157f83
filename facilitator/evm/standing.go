package evm

import (
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

const (
	// maxReverts is how many transactions for one payer may be reverted within
	// revertsLife, each at our cost, before the payer is refused. An honest payer
	// meets one in bad luck: the money left in the very block of the payment. So many
	// transactions, too, may succeed without moving an asset, before it is refused.
	maxReverts  = 3
	revertsLife = time.Hour
	// maxStandings bounds how many payers, assets and codes are remembered. To be
	// remembered costs a payment, or us a revert.
	maxStandings = 1 << 14
)

// standings remember what became of the transactions for a payer, for an asset, and
// for payers with one code, each by an address or a hash.
type standings struct {
	mu    sync.Mutex
	known lru.BasicLRU[common.Hash, standing]
}

// standing is what became of transactions.
type standing struct {
	paid     int       // moved money
	since    int       // moved money since one was last reverted
	reverted int       // were reverted, or did not move the money, within revertsLife
	last     time.Time // when that was
	burnt    int       // cost us something for nothing while the payer was a customer
}

func newStandings() *standings {
	return &standings{known: lru.NewBasicLRU[common.Hash, standing](maxStandings)}
}

func (s *standings) of(what common.Hash) standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _ := s.known.Get(what)
	return k
}

// moved takes note of money that moved.
func (s *standings) moved(whats ...common.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range whats {
		if what == (common.Hash{}) {
			continue // of a payer without code
		}
		k, _ := s.known.Get(what)
		k.paid++
		k.since++
		s.known.Add(what, k)
	}
}

// reverted takes note of a transaction that was reverted, though its simulation was
// not, or that did not move the money: nobody has paid, and we have.
func (s *standings) reverted(now time.Time, whats ...common.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range whats {
		if what == (common.Hash{}) {
			continue
		}
		k, _ := s.known.Get(what)
		if now.Sub(k.last) >= revertsLife {
			k.reverted = 0
		}
		k.reverted++
		k.since, k.last = 0, now
		s.known.Add(what, k)
	}
}

// bad reports whether too many transactions were reverted lately, or did not move
// the asset.
func (k standing) bad(now time.Time) bool {
	return k.reverted >= maxReverts && now.Sub(k.last) < revertsLife
}

// suspect is bad of a code that many wallets have: most of those that paid count for
// it, since anybody can have a wallet with the same.
func (k standing) suspect(now time.Time) bool { return k.bad(now) && k.reverted > k.paid }

// paid is how many payments of a payer moved money since one was last reverted.
func (s *standings) paid(payer common.Address) int { return s.of(chain.AddressTopic(payer)).since }

// backed reports whether the payments of a payer outnumber those that have cost us
// something for nothing, and those on their way.
func (s *standings) backed(payer common.Address, onTheirWay int) bool {
	k := s.of(chain.AddressTopic(payer))
	return k.paid > k.burnt+onTheirWay
}

// burnt takes note of a payment of a customer that has cost us something for nothing.
func (s *standings) burnt(payer common.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _ := s.known.Get(chain.AddressTopic(payer))
	k.burnt++
	s.known.Add(chain.AddressTopic(payer), k)
}

// allowed is how many payments of a payer may be on their way at once.
func (s *standings) allowed(payer common.Address) int {
	return min(maxUnproven+s.paid(payer), maxOfPayer)
}

// hasPaid reports whether a payer has paid here, ever.
func (c *settler) hasPaid(payer common.Address) bool {
	return c.shared.standings.of(chain.AddressTopic(payer)).paid > 0
}
