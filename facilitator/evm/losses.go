package evm

import (
	"math/big"
	"sync"
	"time"
)

// defaultGasBudget is the gas that transactions for nothing may use in a day, where
// the config says no gas_budget.
const defaultGasBudget = 20_000_000

// losses count what transactions cost that moved no money, by day: in the chain's
// smallest unit, or in gas where the config names no amount. Half of the budget is for
// payers with code, and half of that for those of them who have not paid here before.
// The other half is for payers without code who have not. What a payment could cost is
// set aside before it is sent: payers make as many fail with one transaction of theirs
// as are on their way.
//
// What bounds the loss are these sums alone: addresses, wallets and signatures cost
// nothing. They are in memory: a new process begins a new day.
type losses struct {
	mu  sync.Mutex
	day int64
	of  [2]loss // by whose
}

// loss is that of one half.
type loss struct {
	lost *big.Int // for nothing
	held *big.Int // what is on its way could still cost
	paid *big.Int // what payments cost that moved money
}

// Whose transactions are counted.
const (
	ofAccounts = iota
	ofCode
)

func newLosses() *losses {
	l := new(losses)
	l.clear()
	return l
}

func (l *losses) clear() {
	for i := range l.of {
		l.of[i] = loss{new(big.Int), new(big.Int), new(big.Int)}
	}
}

// begin begins a new day if one has come. What was set aside the day before is not
// any more.
func (l *losses) begin(now time.Time) {
	if day := now.Unix() / 86_400; day != l.day {
		l.day = day
		l.clear()
	}
}

// hold sets aside what a payment could cost; false if there is not enough left for it
// while others are on their way. In a rush of strangers without code as much more may
// be on its way as payments have cost today that moved money.
func (l *losses) hold(whose int, known bool, cost, budget *big.Int, now time.Time) (*held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	h := &held{losses: l, whose: whose, cost: cost, day: l.day}
	of := &l.of[whose]
	if exempt(whose, known) {
		h.cost = new(big.Int)
		return h, true
	}
	limit, sum := share(whose, known, budget), new(big.Int).Add(of.lost, of.held)
	if whose == ofAccounts {
		limit.Add(limit, of.paid)
	}
	if sum.Add(sum, cost).Cmp(limit) > 0 {
		return nil, false
	}
	of.held.Add(of.held, cost)
	return h, true
}

// spent reports whether one more payment that fails would cost more than is left of the
// day's budget.
func (l *losses) spent(whose int, known bool, cost, budget *big.Int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	if exempt(whose, known) {
		return false
	}
	return new(big.Int).Add(l.of[whose].lost, cost).Cmp(share(whose, known, budget)) > 0
}

// exempt: who has no code and has paid goes on. Such a payer can cost us no more
// transactions than were paid, and two.
func exempt(whose int, known bool) bool { return whose == ofAccounts && known }

// share is the part of the budget that is for such payers.
func share(whose int, known bool, budget *big.Int) *big.Int {
	if whose == ofCode && !known {
		return new(big.Int).Rsh(budget, 2)
	}
	return new(big.Int).Rsh(budget, 1)
}

// today is what was lost.
func (l *losses) today(now time.Time) *big.Int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	return new(big.Int).Add(l.of[ofAccounts].lost, l.of[ofCode].lost)
}

// held is what is set aside for one payment, until its end is known.
type held struct {
	losses *losses
	whose  int
	cost   *big.Int
	day    int64
	ended  bool
}

// end gives back what was set aside, once. cost is what the payment has cost us for
// nothing; nil is nothing.
func (h *held) end(cost *big.Int) { h.settle(cost, nil) }

// paid gives back what was set aside for a payment that has moved money, and cost so
// much.
func (h *held) paid(cost *big.Int) { h.settle(nil, cost) }

func (h *held) settle(lost, paid *big.Int) {
	if h == nil {
		return
	}
	l := h.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.ended {
		return
	}
	h.ended = true
	of := &l.of[h.whose]
	if h.day == l.day {
		of.held.Sub(of.held, h.cost)
	}
	if lost != nil {
		of.lost.Add(of.lost, lost)
	}
	if paid != nil {
		of.paid.Add(of.paid, paid)
	}
}
