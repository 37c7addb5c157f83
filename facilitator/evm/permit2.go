package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// The proxies that payers name as the spender of a Permit2 signature. They have
// the same addresses on every chain.
var (
	exactProxy = common.HexToAddress(x402.ExactPermit2Proxy)
	uptoProxy  = common.HexToAddress(x402.UptoPermit2Proxy)
)

// Selectors of the proxies, and the event by which a payer gives up nonces.
var (
	settleExact     = selector("settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
	settleExact2612 = selector("settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
	settleUpto      = selector("settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)")
	settleUpto2612  = selector("settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)")

	invalidationTopic = crypto.Keccak256Hash([]byte("UnorderedNonceInvalidation(address,uint256,uint256)"))
)

func selector(signature string) [4]byte {
	return [4]byte(crypto.Keccak256([]byte(signature)))
}

// permit2 is the transfer of any token by Permit2, through one of the proxies of
// x402, which see to it that the money goes to the payee.
type permit2 struct {
	permit eip712.Permit
	proxy  common.Address
	// allowance is a signature that lets Permit2 move the token, used in the same
	// transaction; nil if there is none.
	allowance *permit2612
}

// decodePermit2 reads what the payer signed.
func (p *payment) decodePermit2(r x402.Requirement) error {
	permit, err := eip712.PermitOf(p.authorization)
	if err != nil {
		return errBeyond()
	}
	w := &permit2{permit: permit, proxy: exactProxy}
	if permit.Upto {
		w.proxy = uptoProxy
	}
	p.way = w
	p.from, p.to = permit.From, permit.To
	if id, ok := chainID(r.Network); ok {
		p.digest = eip712.Permit2Domain(id).PermitDigest(&permit)
	}
	return nil
}

func (w *permit2) codes() codes {
	c := codes{signature: x402.CodePermit2Signature, nonceUsed: codePermit2Nonce, transaction: codeTransaction}
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
		b = append(b, settleUpto2612[:]...)
	case w.permit.Upto:
		b = append(b, settleUpto[:]...)
	case w.allowance != nil:
		b = append(b, settleExact2612[:]...)
	default:
		b = append(b, settleExact[:]...)
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
		amount := p.value
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

// isCall reports whether the input of a call to the proxy is a settlement of this
// payment: the same nonce of the same payer, for the same token, payee and amount.
// Anyone may make it, with a signature in another form, with a permit, or with
// something behind it.
func (w *permit2) isCall(p *payment, input []byte) bool {
	plain, with2612, amount, from := settleExact, settleExact2612, 1, 4
	if w.permit.Upto {
		plain, with2612, amount, from = settleUpto, settleUpto2612, 4, 5
	}
	if len(input) < 4 {
		return false
	}
	args := input[4:]
	switch [4]byte(input) {
	case plain:
	case with2612:
		args = args[min(5*32, len(args)):]
	default:
		return false
	}
	if len(args) < 8*32 {
		return false
	}
	word := func(i int) common.Hash { return common.Hash(args[32*i:]) }
	return word(0) == addressTopic(w.permit.Token) && word(amount) == p.value.Bytes32() && word(2) == p.nonce &&
		word(from) == addressTopic(p.from) && word(from+1) == addressTopic(p.to)
}

func (*permit2) keeper(*payment) common.Address { return eip712.Permit2 }

// askUsed asks for the 256 nonces that share a word with this one.
func (w *permit2) askUsed(p *payment) []byte {
	word := new(big.Int).Rsh(w.permit.Nonce.ToBig(), 8)
	return pack("nonceBitmap", p.from, word)
}

func (w *permit2) used(answer result3) (used, ok bool) {
	word, ok := value[*big.Int](answer, "nonceBitmap")
	return ok && word.Bit(w.bit()) == 1, ok
}

// bit is the place of the nonce in its word.
func (w *permit2) bit() int { return int(w.permit.Nonce.Uint64() & 0xff) } // #nosec G115 -- one byte

func (w *permit2) questions(p *payment) []call3 {
	return []call3{
		{w.proxy, pack("PERMIT2")},
		{eip712.Permit2, w.askUsed(p)},
		{p.token, pack("balanceOf", p.from)},
		{p.token, pack("allowance", p.from, eip712.Permit2)},
	}
}

// reason is the code for what a diagnosis found, the first that applies. What a
// token does not tell is not held against the payment.
func (w *permit2) reason(p *payment, _ x402.Requirement, found []result3) x402.Code {
	if _, ok := value[common.Address](found[0], "PERMIT2"); !ok {
		return codePermit2Proxy
	}
	if used, ok := w.used(found[1]); ok && used {
		return codePermit2Nonce
	}
	amount := p.value.ToBig()
	if balance, ok := value[*big.Int](found[2], "balanceOf"); ok && balance.Cmp(amount) < 0 {
		return codePermit2Balance
	}
	if allowance, ok := value[*big.Int](found[3], "allowance"); ok && allowance.Cmp(amount) < 0 {
		return codePermit2Allowance
	}
	return codePermit2Simulation
}

// filter asks for what the payer paid in this token, and for the nonces that the
// payer gave up: Permit2 writes nothing about a use.
func (*permit2) filter(p *payment) map[string]any {
	return map[string]any{
		"address": []common.Address{p.token, eip712.Permit2},
		"topics":  []any{[]common.Hash{transferTopic, invalidationTopic}, addressTopic(p.from)},
	}
}

func (*permit2) direct() bool { return true }

// isUse reports whether the event is a transfer from the payer to the payee. Of
// which payment it is, only the transaction tells.
func (*permit2) isUse(p *payment, e *event) bool {
	return e.Address == p.token && len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == addressTopic(p.from) && e.Topics[2] == addressTopic(p.to)
}

// isCancel reports whether the event says that the payer gave up the nonce. That
// can be said of a used one, too.
func (w *permit2) isCancel(p *payment, e *event) bool {
	if e.Address != eip712.Permit2 || len(e.Topics) != 2 || e.Topics[0] != invalidationTopic ||
		e.Topics[1] != addressTopic(p.from) || len(e.Data) != 64 {
		return false
	}
	word, mask := new(big.Int).SetBytes(e.Data[:32]), new(big.Int).SetBytes(e.Data[32:])
	return word.Cmp(new(big.Int).Rsh(w.permit.Nonce.ToBig(), 8)) == 0 && mask.Bit(w.bit()) == 1
}

// moved wants a successful call of the proxy that is a settlement of this
// payment, and the transfer.
//
// Neither Permit2 nor the proxy writes which nonce was used, so that events alone
// could prove two payments of the same amount. The call of the transaction itself
// cannot: one transaction has one, and the proxy reverts it unless this nonce was
// free and the money went from the payer to the payee. A settlement that somebody
// else hides inside another call is therefore not recognised.
func (w *permit2) moved(p *payment, r *receipt, own bool) bool {
	if !own && (r.call == nil || !r.call.calls(w.proxy) || !w.isCall(p, r.call.Input)) {
		return false
	}
	for i := range r.Logs {
		if e := &r.Logs[i]; !e.Removed && e.Address == p.token && e.isTransfer(p) {
			return true
		}
	}
	return false
}

// wentElsewhere says nothing: a nonce that somebody else's call used leaves doubt.
func (*permit2) wentElsewhere(*payment, *receipt) bool { return false }
