package evm

import (
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// defaultGasBudget is the gas that transactions for nothing may use in a day, where
// the config says no gas_budget.
const defaultGasBudget = 20_000_000

// rushShare is how many times the gas of payments that moved money makes room for others
// on their way: what one may use is more than twice what it uses as a rule.
const rushShare = 2

// losses count, by day, what transactions cost us that moved no money: in the chain's smallest
// unit, or in gas where the config names no amount. What a payment could cost is set aside
// before it is sent, because a payer can make all payments on their way fail with a single
// transaction.
//
// Each class of payers has a part of the budget, so that none can use up what another needs.
// Half of the budget is for payers with code, and half of that half for those among them who
// have not paid here before. The other half is for payers without code who have not paid here.
// Payers without code who have paid are counted against a second budget of the same size: half
// of it while they have more payments that moved money than are lost or on their way
// (ofCustomers), and half for the others (ofUnbacked). So a payer who has bought once can
// cause one loss in the first half, and counts in the second after that.
//
// Only these sums bound the loss: new addresses, wallets and signatures cost an attacker
// nothing. The sums are in memory, so a new process begins a new day.
type losses struct {
	mu  sync.Mutex
	day int64
	of  [classes]loss // by whose
	// backing is how many payments of a customer are on their way. standings counts those of a
	// customer that were lost.
	backing   map[common.Address]int
	standings *standings
}

// loss is that of the payers of one class.
type loss struct {
	lost *big.Int // for nothing
	held *big.Int // what is on its way could still cost
	paid *big.Int // what payments cost that moved money
}

// Whose transactions are counted.
const (
	ofAccounts  = iota // of payers without code who have not paid here
	ofCode             // of payers with code
	ofCustomers        // of payers without code who have paid more often than they may burn
	ofUnbacked         // of others who have paid: more of theirs are on their way, or burnt
	classes
)

func newLosses(known *standings) *losses {
	l := &losses{backing: make(map[common.Address]int), standings: known}
	l.clear()
	return l
}

func (l *losses) clear() {
	for i := range l.of {
		l.of[i].lost, l.of[i].paid = new(big.Int), new(big.Int)
		if l.of[i].held == nil {
			l.of[i].held = new(big.Int)
		}
	}
}

// begin begins a new day if one has come. What is on its way stays set aside: it is
// lost on the day on which that turns out.
func (l *losses) begin(now time.Time) {
	if day := now.Unix() / 86_400; day != l.day {
		l.day = day
		l.clear()
	}
}

// holdOf is hold for a customer, who must have more payments that moved money than were lost
// and are on their way.
func (l *losses) holdOf(customer common.Address, cost, budget *big.Int, now time.Time) (*held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	h := &held{losses: l, whose: ofUnbacked, known: true, cost: new(big.Int), customer: customer}
	if l.standings.backed(customer, l.backing[customer]) {
		h.whose = ofCustomers
	}
	if !h.change(cost, budget, false) {
		return nil, false
	}
	l.backing[customer]++
	return h, true
}

// hold sets aside what a payment could cost; false if there is not enough left for it
// while others are on their way. In a rush of payers without code more may be on its way:
// rushShare times what payments of their class have cost today that moved money.
func (l *losses) hold(whose int, known bool, cost, budget *big.Int, now time.Time) (*held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	h := &held{losses: l, whose: whose, known: known, cost: new(big.Int)}
	if !h.change(cost, budget, false) {
		return nil, false
	}
	return h, true
}

// spent reports whether one more payment that fails would cost more than is left of the
// day's budget.
func (l *losses) spent(whose int, known bool, cost, budget *big.Int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	return new(big.Int).Add(l.of[whose].lost, cost).Cmp(share(whose, known, budget)) > 0
}

// share is the part of the budget that is for such payers.
func share(whose int, known bool, budget *big.Int) *big.Int {
	switch {
	case whose == ofCode && !known:
		return new(big.Int).Rsh(budget, 2)
	}
	return new(big.Int).Rsh(budget, 1)
}

// today is what was lost.
func (l *losses) today(now time.Time) *big.Int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(now)
	sum := new(big.Int)
	for i := range l.of {
		sum.Add(sum, l.of[i].lost)
	}
	return sum
}

// held is what is set aside for one payment, until its end is known.
type held struct {
	losses *losses
	whose  int
	known  bool // see share
	cost   *big.Int
	ended  bool
	// customer is whose it is if that is one, see holdOf.
	customer common.Address
}

// resize sets aside another amount than before. If it is more and there is no room for
// it, it reports false, unless it is to be set aside anyhow.
func (h *held) resize(cost, budget *big.Int, now time.Time, anyhow bool) bool {
	if h == nil {
		return true
	}
	h.losses.mu.Lock()
	defer h.losses.mu.Unlock()
	h.losses.begin(now)
	return h.ended || h.change(cost, budget, anyhow)
}

// change is resize for who holds the lock.
func (h *held) change(cost, budget *big.Int, anyhow bool) bool {
	of := &h.losses.of[h.whose]
	sum := new(big.Int).Sub(of.held, h.cost)
	sum.Add(sum, cost)
	limit := new(big.Int).Sub(share(h.whose, h.known, budget), of.lost)
	if h.whose != ofCode {
		limit.Add(limit, new(big.Int).Mul(of.paid, big.NewInt(rushShare)))
	}
	if cost.Cmp(h.cost) > 0 && sum.Cmp(limit) > 0 && !anyhow {
		return false
	}
	h.cost, of.held = cost, sum
	return true
}

// of is where it is counted; nil for nothing.
func (h *held) of() *losses {
	if h == nil {
		return nil
	}
	return h.losses
}

// end gives back what was set aside, once. cost is what the payment has cost us for
// nothing, and at most what was set aside; nil is nothing.
func (h *held) end(cost *big.Int) { h.settle(cost, nil) }

// lose is end for a payment of which nobody knows what it has cost: all of it.
func (h *held) lose() {
	if h == nil {
		return
	}
	h.losses.mu.Lock()
	all := h.cost
	h.losses.mu.Unlock()
	h.settle(all, nil)
}

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
	of.held = new(big.Int).Sub(of.held, h.cost)
	if lost != nil {
		if lost.Cmp(h.cost) > 0 {
			lost = h.cost // a node that says more than we have offered is wrong
		}
		of.lost.Add(of.lost, lost)
	}
	if h.customer != (common.Address{}) {
		if l.backing[h.customer]--; l.backing[h.customer] <= 0 {
			delete(l.backing, h.customer)
		}
		if lost != nil {
			l.standings.burnt(h.customer)
		}
	}
	if paid != nil {
		if paid.Cmp(h.cost) > 0 {
			paid = h.cost // likewise: it makes room for others
		}
		of.paid.Add(of.paid, paid)
	}
}
