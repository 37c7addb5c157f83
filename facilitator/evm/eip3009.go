package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Selectors and topics, see EIP-3009. The second form of the transfer is that of
// tokens which take signatures of contract wallets.
var (
	transferSelector      = [4]byte{0xe3, 0xee, 0x16, 0x0e} // transferWithAuthorization(…, uint8 v, bytes32 r, bytes32 s)
	transferBytesSelector = [4]byte{0xcf, 0x09, 0x29, 0x95} // transferWithAuthorization(…, bytes signature)

	usedTopic     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
	canceledTopic = crypto.Keccak256Hash([]byte("AuthorizationCanceled(address,bytes32)"))
	transferTopic = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
)

// eip3009 is the transfer with authorization of the token itself.
type eip3009 struct{ transfer eip712.Transfer }

// decodeEIP3009 reads what the payer signed.
func (p *payment) decodeEIP3009(r x402.Requirement) error {
	t, err := eip712.TransferOf(p.authorization)
	if err != nil {
		return errBeyond()
	}
	p.way = &eip3009{t}
	p.from, p.to = t.From, t.To
	// Who only looks for what became of the payment needs no domain.
	if domain, err := eip712.DomainOf(r); err == nil {
		p.digest = domain.TransferDigest(&t)
	}
	return nil
}

func (w *eip3009) codes() codes {
	return codes{signature: x402.CodeSignature, nonceUsed: codeNonceUsed, transaction: codeTransaction}
}

// call encodes transferWithAuthorization(from, to, value, validAfter,
// validBefore, nonce, …), with the signature in three parts or, if it has not 65
// bytes, in one piece.
func (w *eip3009) call(p *payment) (common.Address, []byte) {
	t := &w.transfer
	b := make([]byte, 0, 4+9*32+len(p.signature))
	split := len(p.signature) == crypto.SignatureLength
	if split {
		b = append(b, transferSelector[:]...)
	} else {
		b = append(b, transferBytesSelector[:]...)
	}
	b = appendAddress(b, t.From)
	b = appendAddress(b, t.To)
	b = appendUint256(b, &t.Value)
	b = appendUint(b, t.ValidAfter)
	b = appendUint(b, t.ValidBefore)
	b = append(b, t.Nonce[:]...)
	if !split {
		b = appendUint(b, 7*32)
		return p.token, appendBytes(b, p.signature)
	}
	b = appendUint(b, uint64(p.signature[64]))
	return p.token, append(b, p.signature[:64]...)
}

func (*eip3009) keeper(p *payment) common.Address { return p.token }

func (*eip3009) askUsed(p *payment) []byte { return pack("authorizationState", p.from, p.nonce) }

func (*eip3009) used(answer result3) (used, ok bool) {
	return value[bool](answer, "authorizationState")
}

// The questions of a diagnosis, in the order in which they are asked.
const (
	askedBalance = iota
	askedName
	askedVersion
	askedState
)

func (w *eip3009) questions(p *payment) []call3 {
	return []call3{
		askedBalance: {p.token, pack("balanceOf", p.from)},
		askedName:    {p.token, pack("name")},
		askedVersion: {p.token, pack("version")},
		askedState:   {p.token, w.askUsed(p)},
	}
}

// reason is the code for what a diagnosis found, the first that applies. What a
// token does not tell is not held against the payment.
func (w *eip3009) reason(p *payment, r x402.Requirement, found []result3) x402.Code {
	var extra struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	_ = json.Unmarshal(r.Extra, &extra) // read before, or there were no domain
	used, ok := w.used(found[askedState])
	if !ok {
		return codeNotEIP3009
	}
	if used {
		return codeNonceUsed
	}
	if name, ok := value[string](found[askedName], "name"); ok && name != extra.Name {
		return codeTokenName
	}
	if version, ok := value[string](found[askedVersion], "version"); ok && version != extra.Version {
		return codeTokenVersion
	}
	if balance, ok := value[*big.Int](found[askedBalance], "balanceOf"); ok && balance.Cmp(p.value.ToBig()) < 0 {
		return codeBalance
	}
	return codeSimulation
}

// filter asks for the events of the token that tell what became of this very
// authorization.
func (*eip3009) filter(p *payment) map[string]any {
	return map[string]any{
		"address": p.token,
		"topics":  []any{[]common.Hash{usedTopic, canceledTopic}, addressTopic(p.from), common.Hash(p.nonce)},
	}
}

func (*eip3009) direct() bool { return false }

// isUse reports whether the event is AuthorizationUsed of this payment.
func (*eip3009) isUse(p *payment, e *event) bool {
	return e.Address == p.token && len(e.Topics) == 3 && e.Topics[0] == usedTopic &&
		e.Topics[1] == addressTopic(p.from) && e.Topics[2] == p.nonce
}

// isCancel reports whether the event is AuthorizationCanceled of this payment.
func (*eip3009) isCancel(p *payment, e *event) bool {
	return e.Address == p.token && len(e.Topics) == 3 && e.Topics[0] == canceledTopic &&
		e.Topics[1] == addressTopic(p.from) && e.Topics[2] == p.nonce
}

// moved wants the use of the authorization and its transfer.
//
// One event proves one payment. In the transaction of somebody else that is not
// as easy as it sounds: who may put several calls into one transaction can use
// one authorization for a transfer to himself, and a second one for the only
// transfer to the payee. Tokens write AuthorizationUsed and its Transfer in
// succession, so that pair is what we want to see.
func (w *eip3009) moved(p *payment, r *receipt, own bool) bool {
	var used, afterUsed, moved bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.token {
			continue
		}
		switch {
		case w.isUse(p, e):
			used, afterUsed = true, true
			continue
		case e.isTransfer(p) && (own || afterUsed):
			moved = true
		}
		afterUsed = false
	}
	return used && moved
}

// wentElsewhere reports whether the token says, beyond doubt, that the
// authorization was cancelled, or used to pay somebody else or another amount.
// The payer signed one nonce twice then, and this payment can never move money.
//
// Any transfer to the payee in the same transaction leaves doubt: there are
// tokens that take a fee, or that write their events in another order.
func (w *eip3009) wentElsewhere(p *payment, r *receipt) bool {
	var afterUsed, elsewhere, toPayee, canceled bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.token {
			continue
		}
		transfer := len(e.Topics) == 3 && e.Topics[0] == transferTopic && e.Topics[1] == addressTopic(p.from)
		toPayee = toPayee || transfer && e.Topics[2] == addressTopic(p.to)
		elsewhere = elsewhere || transfer && afterUsed
		canceled = canceled || w.isCancel(p, e)
		afterUsed = w.isUse(p, e)
	}
	return canceled || elsewhere && !toPayee
}
