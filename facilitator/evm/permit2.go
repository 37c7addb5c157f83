package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// permit2 is the transfer of any token by Permit2, through one of the proxies of
// x402, which see to it that the money goes to the payee.
type permit2 struct {
	permit eip712.Permit
	proxy  common.Address
	// allowance is a signature that lets Permit2 move the token, used in the same
	// transaction; nil if there is none.
	allowance *permit2612
}

// settlesPermit2 is for a payment that Permit2 moves.
func (p *payment) settlesPermit2(r x402.Requirement) {
	w := &permit2{permit: *p.Permit, proxy: chain.ExactProxy}
	if w.permit.Upto {
		w.proxy = chain.UptoProxy
	}
	p.way = w
	if id, ok := chain.IDOf(r.Network); ok {
		p.digest = eip712.Permit2Domain(id).PermitDigest(&w.permit)
	}
}

func (w *permit2) codes() codes {
	c := codes{signature: x402.CodePermit2Signature, transaction: codeTransaction}
	if w.permit.Upto {
		c.transaction = codeUptoTransaction
	}
	return c
}

// call encodes the proxy's settle, or settleWithPermit.
func (w *permit2) call(p *payment) (common.Address, []byte) {
	b := make([]byte, 0, 4+18*32+len(p.signature))
	words := uint64(8) // of the head, the allowance apart
	switch {
	case w.permit.Upto && w.allowance != nil:
		b = append(b, chain.SettleUpto2612[:]...)
	case w.permit.Upto:
		b = append(b, chain.SettleUpto[:]...)
	case w.allowance != nil:
		b = append(b, chain.SettleExact2612[:]...)
	default:
		b = append(b, chain.SettleExact[:]...)
	}
	if w.allowance != nil {
		b = w.allowance.append(b)
		words += 5
	}
	b = appendAddress(b, w.permit.Token)
	b = appendUint256(b, &w.permit.Amount)
	b = appendUint256(b, &w.permit.Nonce)
	b = appendUint(b, w.permit.Deadline)
	if w.permit.Upto {
		amount := p.Value
		if amount.IsZero() { // only to be simulated: nothing is sent then
			amount = w.permit.Amount
		}
		b = appendUint256(b, &amount)
		words += 2
	}
	b = appendAddress(b, w.permit.From)
	b = appendAddress(b, w.permit.To)
	if w.permit.Upto {
		b = appendAddress(b, w.permit.Facilitator)
	}
	b = appendUint(b, w.permit.ValidAfter)
	b = appendUint(b, words*32)
	return w.proxy, appendBytes(b, p.signature)
}

func (w *permit2) questions(p *payment) []call3 {
	return []call3{
		{w.proxy, chain.Pack("PERMIT2")},
		{eip712.Permit2, p.AskUsed()},
		{p.Token, chain.Pack("balanceOf", p.From)},
		{p.Token, chain.Pack("allowance", p.From, eip712.Permit2)},
	}
}

// reason is the code for what a diagnosis found, the first that applies. What a
// token does not tell is not held against the payment.
func (w *permit2) reason(p *payment, _ x402.Requirement, found []result3) x402.Code {
	if _, ok := value[common.Address](found[0], "PERMIT2"); !ok {
		return codePermit2Proxy
	}
	if used, ok := p.ReadUsed(found[1].ReturnData, found[1].Success); ok && used {
		return chain.CodePermit2Nonce
	}
	amount := p.Value.ToBig()
	if balance, ok := value[*big.Int](found[2], "balanceOf"); ok && balance.Cmp(amount) < 0 {
		return codePermit2Balance
	}
	if allowance, ok := value[*big.Int](found[3], "allowance"); ok && allowance.Cmp(amount) < 0 {
		return codePermit2Allowance
	}
	return codePermit2Simulation
}
