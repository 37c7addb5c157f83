package evm

import (
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"
)

// approvals are the payers' own transactions that let Permit2 move their tokens,
// and what we spent on their gas. It is counted in memory: a new process begins a
// new day.
type approvals struct {
	mu      sync.Mutex
	running map[common.Address]chan struct{} // by payer; closed at the end
	strange map[common.Address]bool          // those of them who have not paid here before
	day     int64
	spent   *big.Int // today, in the chain's smallest unit
	// ofStrangers is what of it was for payers who have not paid here before.
	ofStrangers *big.Int

	// unpaid are the gifts whose payers have not paid since. A payer who is forgotten here
	// gains nothing: a new address costs as little.
	unpaid *lru.Cache[gift, struct{}]
	// late is when payers had an approval that no block took. It keeps out payers who come
	// again and again; customers are served all the same, because half of the places are
	// theirs (mayBegin).
	late *lru.Cache[common.Address, time.Time]
}

// gift is the gas for one approval.
type gift struct{ payer, token common.Address }

// strangersShare: payers who have not paid here before get at most this part of a
// day's budget. A new address is free, so whoever makes many of them can use that up,
// but not what is left for customers.
const strangersShare = 2

// take reserves some of today's budget, for a payer who has paid here before or for
// one who has not.
func (a *approvals) take(cost, budget *big.Int, now time.Time, hasPaid bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if day := now.Unix() / 86_400; day != a.day {
		a.day, a.spent, a.ofStrangers = day, new(big.Int), new(big.Int)
	}
	sum := new(big.Int).Add(a.spent, cost)
	if sum.Cmp(budget) > 0 {
		return false
	}
	if !hasPaid {
		strangers := new(big.Int).Add(a.ofStrangers, cost)
		if new(big.Int).Mul(strangers, big.NewInt(strangersShare)).Cmp(budget) > 0 {
			return false
		}
		a.ofStrangers = strangers
	}
	a.spent = sum
	return true
}

// give returns what was reserved and not spent.
func (a *approvals) give(cost *big.Int, hasPaid bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Another day may have begun meanwhile, of which nothing was taken.
	a.spent = larger(new(big.Int).Sub(a.spent, cost), new(big.Int))
	if !hasPaid {
		a.ofStrangers = larger(new(big.Int).Sub(a.ofStrangers, cost), new(big.Int))
	}
}

// left reports whether so much of today's budget is left.
func (a *approvals) left(cost, budget *big.Int, now time.Time, hasPaid bool) bool {
	if !a.take(cost, budget, now, hasPaid) {
		return false
	}
	a.give(cost, hasPaid)
	return true
}

// begin makes the caller the one who sends the payer's approval, unless somebody is at it
// already; then it returns what to wait for. It is no singleflight, which bounds neither how
// many run nor who may begin.
func (a *approvals) begin(payer common.Address, hasPaid bool, now time.Time) (done chan struct{}, first bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if done, ok := a.running[payer]; ok {
		return done, false, nil
	}
	if err := a.mayBegin(payer, hasPaid, now); err != nil {
		return nil, false, err
	}
	done = make(chan struct{})
	a.running[payer] = done
	if !hasPaid {
		a.strange[payer] = true
	}
	return done, true, nil
}

// errTooManyApprovals is for a payer whose approval there is no room for.
func errTooManyApprovals() error {
	return refuse(codePermit2Allowance, "too many approvals are on their way")
}

// refuses says why an approval of the payer is not sent; nil if it is, or one is under way.
func (a *approvals) refuses(payer common.Address, hasPaid bool, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, running := a.running[payer]; running {
		return nil
	}
	return a.mayBegin(payer, hasPaid, now)
}

// mayBegin is refuses for a caller who holds the lock, of a payer with none under way. Half of
// the places are for payers who have paid here before.
func (a *approvals) mayBegin(payer common.Address, hasPaid bool, now time.Time) error {
	if at, ok := a.late.Get(payer); ok && now.Sub(at) < approvalPause {
		return refuse(codePermit2Allowance, "an approval of this payer was in no block lately")
	}
	if len(a.running) >= maxApprovals || !hasPaid && len(a.strange)*strangersShare >= maxApprovals {
		return errTooManyApprovals()
	}
	return nil
}

func (a *approvals) end(payer common.Address, done chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, payer)
	delete(a.strange, payer)
	close(done)
}
