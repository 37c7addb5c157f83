package evm

import (
	"math/big"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// pairSize is how long a transaction of two payments is. For a payment that can go together
// with others, the share of one of two is set aside: in a larger batch it is less. What a
// payment takes that goes alone after all is set aside in setAside.
var pairSize = programSize(2, false) + 2*transferSize

const (
	// transferSize is how long the call is that settles a payment of several.
	transferSize = 4 + 9*32
	// leastTransferGas is what a payment that moves money uses at least: its nonce and two
	// balances are written, and a signature is checked.
	leastTransferGas = 35_000
	// leastGas is what any transaction uses.
	leastGas = 21_000
)

// class says in which class of losses a payment is counted, if no other payment of its payer
// is on its way.
func (c *settler) class(p *payment) int {
	switch {
	case p.signer != byKey:
		return ofCode
	case c.shared.standings.paid(p.From) == 0:
	case c.shared.standings.backed(p.From, 0):
		return ofCustomers
	default:
		return ofUnbacked
	}
	return ofAccounts
}

// losses are those that the config has a budget for.
func (c *settler) losses() *losses {
	if c.gasBudget == nil {
		return c.shared.gasLosses
	}
	return c.shared.losses
}

// budget is what may be lost in a day, in what losses count in.
func (c *settler) budget() *big.Int {
	if c.gasBudget == nil {
		return big.NewInt(defaultGasBudget)
	}
	return c.gasBudget
}

// risk is what a payment could cost us for nothing, in what losses count in, as far as
// that is known before it is sent.
func (c *settler) risk(p *payment) *big.Int {
	last := c.lastFees.Load()
	if last == nil {
		last = &fees{feeCap: new(big.Int), tip: new(big.Int)}
	}
	if c.shareable(p) {
		return c.mayCostEach(2, programGas(2, pairSize), last.of(pairSize))
	}
	_, data := p.encoded()
	return c.mayCost(p.gas(), last.of(len(data)))
}

// setAside sets aside what a transaction that is about to be signed may cost, in equal parts
// for its payments. The error is a *leftOutError of the payments for which there is no room.
// Only here it is decided: what was set aside for a payment before was a guess. A transaction
// that is sent again must be, so that anyhow sets aside more than there is room for.
func (c *settler) setAside(fl *flight, f fees, anyhow bool) error {
	if len(fl.places) == 0 {
		return nil // coin for somebody, or a number that is used up
	}
	each := c.mayCostEach(len(fl.places), fl.gas, f)
	left := make(map[claim]error)
	for i, p := range fl.places {
		if p == nil || p.held.of() != c.losses() {
			continue // of a config that counts otherwise: what was set aside stays so
		}
		if !p.held.resize(each, c.budget(), c.now(), anyhow) {
			left[fl.payments[i].claim()] = errTooRisky
		}
	}
	c.shared.queue.wake() // less may be set aside than before
	return leaveOut(left)
}

// mayCostEach is the part that each of some payments has in mayCost.
func (c *settler) mayCostEach(n int, gas uint64, f fees) *big.Int {
	each := c.mayCost(gas, f)
	each.Add(each, big.NewInt(int64(n-1)))
	return each.Quo(each, big.NewInt(int64(n)))
}

// mayCost is the most that so much gas costs at some fees, in what losses count in.
func (c *settler) mayCost(gas uint64, f fees) *big.Int {
	if c.gasBudget == nil {
		return worth(gas, f.price(), f.published, true)
	}
	return worth(gas, f.feeCap, f.published, false)
}

// worth is what some gas costs at a price, and the publication of a transaction besides,
// in coin or in gas. If that is gas, a publication counts as the gas that could have been
// bought for it.
func worth(gas uint64, price, published *big.Int, inGas bool) *big.Int {
	n := new(big.Int).SetUint64(gas)
	switch {
	case !inGas:
		n.Mul(n, price)
		if published != nil {
			n.Add(n, published)
		}
	case published != nil && price.Sign() > 0:
		n.Add(n, new(big.Int).Quo(published, price))
	}
	return n
}

// price is what one gas cost when that was last seen; 0 if it never was.
func (c *settler) price() *big.Int {
	last := c.lastFees.Load()
	if last == nil {
		return new(big.Int)
	}
	return last.price()
}

// conclude ends what is set aside for all payments of a transaction, by its receipt. The first
// caller who sees the receipt does it for all.
func (c *settler) conclude(fl *flight, r *chain.Receipt) {
	if r == nil || !fl.concludes() {
		return
	}
	var failed, moved []*held
	for i, p := range fl.payments {
		switch {
		case fl.places[i] == nil:
		case r.Judge(r.Transaction, &p.Payment, p.origin(fl.shared)) == chain.Paid:
			moved = append(moved, fl.places[i].held)
		default:
			failed = append(failed, fl.places[i].held)
		}
	}
	// A config before a reload may have counted otherwise than this one.
	for _, inGas := range []bool{true, false} {
		lost, cost := shares(fl, r, len(failed), len(moved), inGas)
		counts := func(h *held) bool { return (h.of() == c.shared.gasLosses) == inGas }
		for _, h := range failed {
			switch {
			case !counts(h):
			case lost == nil:
				h.lose()
			default:
				h.end(lost)
			}
		}
		for _, h := range moved {
			if counts(h) {
				h.paid(cost)
			}
		}
	}
	c.shared.queue.wake()
}

// shares divides the cost of a transaction: lost for each payment that moved no money, and
// cost for each one that did. The payments that moved money bear the least that they must have
// used; the rest is lost. lost is nil if the node does not tell the gas.
func shares(fl *flight, r *chain.Receipt, failed, moved int, inGas bool) (lost, cost *big.Int) {
	if r.GasUsed == nil || failed+moved == 0 {
		return nil, new(big.Int)
	}
	// A node can say neither more than we have offered, nor less than is possible.
	gas := min(max(uint64(*r.GasUsed), leastGas), fl.gas)
	price := toBig(r.GasPrice)
	if most := fl.offers().feeCap; price == nil || price.Cmp(most) > 0 {
		price = most
	}
	published, most := toBig(r.L1Fee), fl.offers().published // of the OP stack
	switch {
	case published == nil || published.Sign() < 0 || most == nil:
		published = new(big.Int)
	case published.Cmp(most) > 0:
		published = most
	}
	part := func(n *big.Int, some int) *big.Int {
		n = new(big.Int).Mul(n, big.NewInt(int64(some)))
		return n.Quo(n, big.NewInt(int64(failed+moved)))
	}
	whole, lost, cost := worth(gas, price, published, inGas), new(big.Int), new(big.Int)
	if failed > 0 {
		lost.Sub(whole, worth(uint64(moved)*leastTransferGas, price, part(published, moved), inGas)) // #nosec G115 -- at most maxBatch
		lost = larger(lost, part(whole, failed))
		lost.Quo(lost, big.NewInt(int64(failed)))
		if most := part(worth(fl.gas, price, published, inGas), 1); lost.Cmp(most) > 0 {
			lost = most
		}
	}
	if moved > 0 {
		cost.Sub(whole, new(big.Int).Mul(lost, big.NewInt(int64(failed))))
		cost.Quo(larger(cost, new(big.Int)), big.NewInt(int64(moved)))
	}
	return lost, cost
}

// refusesRisk refuses payments of whose kind too many did not settle although the
// simulation said that they would.
func (c *settler) refusesRisk(p *payment) error {
	whose, known := c.class(p), c.shared.standings.paid(p.From) > 0
	if whose == ofCode {
		switch {
		case c.noWallets:
			return refuse(codeNoWallets, "payments of payers with code are not taken here")
		case !known && c.shared.standings.of(p.code).suspect(c.now()):
			return refuse(codeReverts, "too many transactions for payers with this code were reverted")
		}
	}
	cost := c.risk(p)
	if cost.Cmp(share(whose, known, c.budget())) > 0 {
		// No payer is to blame, and it does not matter what was lost today.
		c.Notices.Error("gas costs so much that one settlement could use up what may be lost in a day, so nothing is settled: wait, or allow more with gas_budget")
		return &busyError{wait: dearWait, why: "gas costs more than may be lost in a day"}
	}
	if c.losses().spent(whose, known, cost, c.budget(), c.now()) {
		return refuse(codeGasBudget, "too much gas was spent today on transactions that moved nothing")
	}
	return nil
}
