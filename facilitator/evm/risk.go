package evm

import "math/big"

// whose transactions a payment is counted among.
func whose(p *payment) int {
	if p.signer == byKey {
		return ofAccounts
	}
	return ofCode
}

// losses are those that the config has a budget for.
func (c *chain) losses() *losses {
	if c.gasBudget == nil {
		return c.shared.gasLosses
	}
	return c.shared.losses
}

// budget is what may be lost in a day, in what losses count in.
func (c *chain) budget() *big.Int {
	if c.gasBudget == nil {
		return big.NewInt(defaultGasBudget)
	}
	return c.gasBudget
}

// risk is what a payment could cost us for nothing, in what losses count in.
func (c *chain) risk(p *payment) *big.Int {
	gas := p.gas()
	if c.shareable(p) {
		gas = memberGas
	}
	return c.worth(gas, c.price())
}

// worth is what some gas costs, in what losses count in.
func (c *chain) worth(gas uint64, price *big.Int) *big.Int {
	n := new(big.Int).SetUint64(gas)
	if c.gasBudget == nil {
		return n
	}
	return n.Mul(n, price)
}

// price is what one gas cost when that was last seen; 0 if it never was.
func (c *chain) price() *big.Int {
	last := c.lastFees.Load()
	if last == nil {
		return new(big.Int)
	}
	return last.expected(1)
}

// refusesRisk refuses payments of whose kind too many did not settle although the
// simulation said that they would.
func (c *chain) refusesRisk(p *payment) error {
	known := c.shared.standings.paid(p.from) > 0
	if whose(p) == ofCode {
		switch {
		case c.noWallets:
			return refuse(codeNoWallets, "payments of payers with code are not taken here")
		case !known && c.shared.standings.of(p.code).suspect(c.now()):
			return refuse(codeReverts, "too many transactions for payers with this code were reverted")
		}
	}
	if c.losses().spent(whose(p), known, c.risk(p), c.budget(), c.now()) {
		return refuse(codeGasBudget, "too much gas was spent today on transactions that moved nothing")
	}
	return nil
}
