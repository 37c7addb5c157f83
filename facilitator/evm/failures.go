package evm

import (
	"time"

	"github.com/ethereum/go-ethereum/common"
)

const (
	// maxReverts is how many transactions for one payer may be reverted within
	// revertsLife, each at our cost, before the payer is refused. An honest payer
	// meets one in bad luck: the money left in the very block of the payment. So many
	// transactions, too, may succeed without moving an asset, before it is refused.
	maxReverts  = 3
	revertsLife = time.Hour
	// maxFailing bounds how many payers and assets are remembered for it.
	maxFailing = 1 << 14
)

// failures are the transactions for one payer that were reverted, or those that
// did not move an asset.
type failures struct {
	count int
	last  time.Time
}

// reverted takes note of a transaction that was reverted, though its simulation was
// not, or that did not move the money: nobody has paid, and we have. It counts
// against the payer or the asset, once for each payment.
func (s *payments) reverted(r *record, whose common.Address, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.counted {
		return
	}
	r.counted = true
	f := s.failed[whose]
	if now.Sub(f.last) >= revertsLife {
		f.count = 0
	}
	if _, known := s.failed[whose]; !known && len(s.failed) >= maxFailing {
		s.forgetFailures(now)
	}
	s.failed[whose] = failures{f.count + 1, now}
}

// reverts reports whether too many transactions of the payer were reverted lately,
// or did not move the asset.
func (s *payments) reverts(whose common.Address, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failed[whose]
	return f.count >= maxReverts && now.Sub(f.last) < revertsLife
}

// forgetFailures drops what is old, and if that is little, others at random.
func (s *payments) forgetFailures(now time.Time) {
	for payer, f := range s.failed {
		if now.Sub(f.last) >= revertsLife {
			delete(s.failed, payer)
		}
	}
	for payer := range s.failed {
		if len(s.failed) <= maxFailing*7/8 {
			return
		}
		delete(s.failed, payer)
	}
}
