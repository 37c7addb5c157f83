package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

// maxTotalFee is the most that one settlement may cost, in the chain's smallest
// unit: one whole coin. A node that asks for more is wrong or lies; go-ethereum
// refuses such transactions too.
var maxTotalFee = big.NewInt(1e18)

// fees is what a transaction offers to pay for its gas.
type fees struct {
	// legacy: the chain knows one price only, which is feeCap.
	legacy      bool
	tip, feeCap *big.Int
	// published is what the chain takes besides the gas for the publication of a transaction
	// on another chain (OP stack): of an ordinary payment, unless of has changed it; nil is
	// nothing.
	published *big.Int
}

// of is the fees of a transaction with so many bytes of data.
func (f fees) of(size int) fees {
	if f.published != nil && size > transferSize {
		n := new(big.Int).Mul(f.published, big.NewInt(int64(size)))
		f.published = n.Quo(n, big.NewInt(transferSize))
	}
	return f
}

// market returns fees that a block of the next minutes takes: base fee and tip
// as the node reports them. The base fee can double in six blocks of 12 s.
func market(base, tip, price *big.Int) fees {
	if price == nil {
		price = new(big.Int)
	}
	if base == nil {
		return fees{legacy: true, tip: price, feeCap: price}
	}
	if tip == nil {
		tip = new(big.Int).Sub(price, base)
		if tip.Sign() < 0 {
			tip.SetInt64(0)
		}
	}
	feeCap := new(big.Int).Lsh(base, 1)
	return fees{tip: tip, feeCap: feeCap.Add(feeCap, tip)}
}

// market is market with the smaller one of two nodes' tips, and remembers the price.
func (c *settler) market(base, tip, price *big.Int) fees {
	f := market(base, c.ceiling.smallerTip(tip, c.now()), price)
	f.published = c.published.Load()
	c.ceiling.saw(f, c.now())
	c.lastFees.Store(&f)
	return f
}

// total is the most that the gas can cost, and the publication.
func (f fees) total(gas uint64) *big.Int {
	return f.with(new(big.Int).Mul(f.feeCap, new(big.Int).SetUint64(gas)))
}

// with adds the publication.
func (f fees) with(cost *big.Int) *big.Int {
	if f.published != nil {
		cost.Add(cost, f.published)
	}
	return cost
}

// price is the market's price of one gas, tip included.
func (f fees) price() *big.Int {
	if f.legacy {
		return f.feeCap
	}
	price := new(big.Int).Add(f.feeCap, f.tip) // see market
	return price.Rsh(price, 1)
}

// usual is what a usual settlement costs at the market's price, tip included.
func (f fees) usual() *big.Int {
	return f.with(new(big.Int).Mul(f.price(), big.NewInt(usualGas)))
}

// excessive reports whether the fees are beyond all reason.
func (f fees) excessive(gas uint64) bool {
	return f.feeCap.Sign() < 0 || f.tip.Sign() < 0 || f.total(gas).Cmp(maxTotalFee) > 0
}

// bumped returns fees for a transaction that takes the place of one with the
// fees f: a quarter more, because nodes want at least a tenth, and at least what
// the market wants now.
func (f fees) bumped(now fees) fees {
	return fees{
		legacy: f.legacy,
		tip:    larger(quarterMore(f.tip), now.tip),
		feeCap: larger(quarterMore(f.feeCap), now.feeCap),

		published: now.published,
	}
}

// maxBump is the most that a transaction offers when it is sent again: so many times the
// market's price.
const maxBump = 3

// above reports whether the fees are more than some times others.
func (f fees) above(others fees, times int64) bool {
	most := new(big.Int).Mul(others.feeCap, big.NewInt(times))
	return f.feeCap.Cmp(most) > 0
}

func quarterMore(n *big.Int) *big.Int {
	q := new(big.Int).Rsh(n, 2)
	q.Add(q, n)
	return q.Add(q, big.NewInt(1)) // of very little, a quarter is nothing
}

func larger(a, b *big.Int) *big.Int {
	if b != nil && b.Cmp(a) > 0 {
		return b
	}
	return a
}

// toBig reads a number of a node; nil if there is none.
func toBig(n *hexutil.Big) *big.Int { return (*big.Int)(n) }
