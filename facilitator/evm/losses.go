package evm

import (
	"errors"
	"math/big"
	"sync"
	"time"
)

// defaultGasBudget is the gas that transactions for nothing may use in a day, at
// the market's price, where the config says no gas_budget.
const defaultGasBudget = 20_000_000

// errBudgetHeld is for a payment of a payer with code while what is left of the
// budget is set aside for others that are on their way.
var errBudgetHeld = errors.New("what is left of gas_budget is set aside for payments on their way; none of this one was sent")

// losses count what transactions cost that moved no money, by day and in the
// chain's smallest unit. Half of the budget is for payers with code, of whom
// none can be trusted, and half of that for those of them who have not paid here
// before. The other half is for payers without code who have not.
//
// What bounds the loss are these sums alone: addresses, wallets and signatures cost
// nothing. They are in memory: a new process begins a new day.
type losses struct {
	mu   sync.Mutex
	day  int64
	lost [2]*big.Int // by whose
	held *big.Int    // what payments of payers with code that are on their way could still cost
}

// Whose transactions are counted.
const (
	ofAccounts = iota
	ofCode
)

func newLosses() *losses { return &losses{lost: [2]*big.Int{{}, {}}, held: new(big.Int)} }

// hold sets aside what a payment could cost, before it is sent, and refuses it if the
// budget is spent. Only payments of payers with code are set aside: each of them may
// fail for nothing. Somebody without code has to move money for that.
func (l *losses) hold(whose int, paidBefore bool, cost, budget *big.Int, now time.Time) (*held, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.spent(whose, paidBefore, cost, budget, now); err != nil {
		return nil, err
	}
	if whose == ofAccounts {
		return &held{losses: l, whose: whose, cost: new(big.Int)}, nil
	}
	all := new(big.Int).Add(l.lost[whose], l.held)
	if all.Add(all, cost).Cmp(share(whose, paidBefore, budget)) > 0 {
		return nil, errBudgetHeld
	}
	l.held = new(big.Int).Add(l.held, cost)
	return &held{losses: l, whose: whose, cost: cost}, nil
}

// refuses is what hold says of a budget that is spent, without setting aside
// anything.
func (l *losses) refuses(whose int, paidBefore bool, cost, budget *big.Int, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spent(whose, paidBefore, cost, budget, now)
}

// spent refuses a payment when one more that fails would cost more than is left of
// the day's budget. Who has no code and has paid goes on: such a payer can cost us no
// more transactions than were paid, and two.
func (l *losses) spent(whose int, paidBefore bool, cost, budget *big.Int, now time.Time) error {
	if day := now.Unix() / 86_400; day != l.day {
		l.day, l.lost = day, [2]*big.Int{{}, {}}
	}
	if whose == ofAccounts && paidBefore {
		return nil
	}
	if sum := new(big.Int).Add(l.lost[whose], cost); sum.Cmp(share(whose, paidBefore, budget)) > 0 {
		return refuse(codeGasBudget, "too much gas was spent today on transactions that moved nothing")
	}
	return nil
}

// share is the part of the budget that is for such payers.
func share(whose int, paidBefore bool, budget *big.Int) *big.Int {
	if whose == ofCode && !paidBefore {
		return new(big.Int).Rsh(budget, 2)
	}
	return new(big.Int).Rsh(budget, 1)
}

// today is what was lost.
func (l *losses) today(now time.Time) *big.Int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Unix()/86_400 != l.day {
		return new(big.Int)
	}
	return new(big.Int).Add(l.lost[ofAccounts], l.lost[ofCode])
}

// held is what is set aside for one payment, until its end is known.
type held struct {
	losses *losses
	whose  int
	cost   *big.Int
}

// end gives back what was set aside. lost is what the payment has cost us; nil is
// nothing. It can be called again.
func (h *held) end(lost *big.Int) {
	if h == nil {
		return
	}
	l := h.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = new(big.Int).Sub(l.held, h.cost)
	h.cost = new(big.Int)
	if lost != nil {
		l.lost[h.whose] = new(big.Int).Add(l.lost[h.whose], lost)
	}
}
