package chain

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
	ExactProxy = common.HexToAddress(x402.ExactPermit2Proxy)
	UptoProxy  = common.HexToAddress(x402.UptoPermit2Proxy)
)

// Selectors of the functions of the proxies that move money, without and with a permit of
// EIP-2612, and the event by which a payer gives up nonces of Permit2.
var (
	SettleExact     = selector("settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
	SettleExact2612 = selector("settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
	SettleUpto      = selector("settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)")
	SettleUpto2612  = selector("settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)")

	invalidationTopic = crypto.Keccak256Hash([]byte("UnorderedNonceInvalidation(address,uint256,uint256)"))
)

func selector(signature string) [4]byte {
	return [4]byte(crypto.Keccak256([]byte(signature)))
}

// permit2Trace is the trace of a payment that Permit2 moves, through one of the proxies of
// x402.
type permit2Trace struct{ permit *eip712.Permit }

// proxy is the contract that the payer named as the spender.
func (w permit2Trace) proxy() common.Address {
	if w.permit.Upto {
		return UptoProxy
	}
	return ExactProxy
}

// isCall reports whether the input of a call to the proxy is a settlement of this
// payment: the same nonce of the same payer, for the same token, payee and amount.
// Anyone may make it, with a signature in another form, with a permit, or with
// something behind it.
func (w permit2Trace) isCall(p *Payment, input []byte) bool {
	plain, with2612, amount, from := SettleExact, SettleExact2612, 1, 4
	if w.permit.Upto {
		plain, with2612, amount, from = SettleUpto, SettleUpto2612, 4, 5
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
	return word(0) == AddressTopic(w.permit.Token) && word(amount) == p.Value.Bytes32() && word(2) == p.Nonce &&
		word(from) == AddressTopic(p.From) && word(from+1) == AddressTopic(p.To)
}

func (permit2Trace) keeper(*Payment) common.Address { return eip712.Permit2 }

// askUsed asks for the 256 nonces that share a word with this one.
func (w permit2Trace) askUsed(p *Payment) []byte {
	word := new(big.Int).Rsh(w.permit.Nonce.ToBig(), 8)
	return Pack("nonceBitmap", p.From, word)
}

func (w permit2Trace) readUsed(answer []byte) (used, ok bool) {
	word, ok := Unpack[*big.Int]("nonceBitmap", answer)
	return ok && word.Bit(w.bit()) == 1, ok
}

func (permit2Trace) usedCode() x402.Code { return CodePermit2Nonce }

// bit is the place of the nonce in its word.
func (w permit2Trace) bit() int { return int(w.permit.Nonce.Uint64() & 0xff) } // #nosec G115 -- one byte

// filter asks for what the payer paid in this token, and for the nonces that the
// payer gave up: Permit2 writes nothing about a use.
func (permit2Trace) filter(p *Payment) map[string]any {
	return map[string]any{
		"address": []common.Address{p.Token, eip712.Permit2},
		"topics":  []any{[]common.Hash{transferTopic, invalidationTopic}, AddressTopic(p.From)},
	}
}

func (permit2Trace) onlyByCall() bool { return true }

// isUse reports whether the event is a transfer from the payer to the payee. Of
// which payment it is, only the transaction tells.
func (permit2Trace) isUse(p *Payment, e *Event) bool {
	return e.Address == p.Token && len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == AddressTopic(p.From) && e.Topics[2] == AddressTopic(p.To)
}

// isCancel reports whether the event says that the payer gave up the nonce. That
// can be said of a used one, too.
func (w permit2Trace) isCancel(p *Payment, e *Event) bool {
	if e.Address != eip712.Permit2 || len(e.Topics) != 2 || e.Topics[0] != invalidationTopic ||
		e.Topics[1] != AddressTopic(p.From) || len(e.Data) != 64 {
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
func (w permit2Trace) moved(p *Payment, r *Receipt, alone bool) bool {
	if !alone && (r.call == nil || !r.call.Calls(w.proxy()) || !w.isCall(p, r.call.Input)) {
		return false
	}
	for i := range r.Logs {
		if e := &r.Logs[i]; !e.Removed && e.Address == p.Token && e.isTransfer(p) {
			return true
		}
	}
	return false
}

// wentElsewhere says nothing: a nonce that somebody else's call used leaves doubt.
func (permit2Trace) wentElsewhere(*Payment, *Receipt) bool { return false }
