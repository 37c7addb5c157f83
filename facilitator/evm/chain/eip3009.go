package chain

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The events of a token, see EIP-3009 and ERC-20.
var (
	usedTopic     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
	canceledTopic = crypto.Keccak256Hash([]byte("AuthorizationCanceled(address,bytes32)"))
	transferTopic = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
)

// eip3009Trace is the trace of a payment that the token itself moves.
type eip3009Trace struct{}

func (eip3009Trace) keeper(p *Payment) common.Address { return p.Token }

func (eip3009Trace) askUsed(p *Payment) []byte { return Pack("authorizationState", p.From, p.Nonce) }

func (eip3009Trace) readUsed(answer []byte) (used, ok bool) {
	return Unpack[bool]("authorizationState", answer)
}

func (eip3009Trace) usedCode() x402.Code { return CodeNonceUsed }

// filter asks for the events of the token that tell what became of this very
// authorization.
func (eip3009Trace) filter(p *Payment) map[string]any {
	return map[string]any{
		"address": p.Token,
		"topics":  []any{[]common.Hash{usedTopic, canceledTopic}, AddressTopic(p.From), common.Hash(p.Nonce)},
	}
}

func (eip3009Trace) onlyByCall() bool { return false }

// isUse reports whether the event is AuthorizationUsed of this payment.
func (eip3009Trace) isUse(p *Payment, e *Event) bool {
	return e.Address == p.Token && len(e.Topics) == 3 && e.Topics[0] == usedTopic &&
		e.Topics[1] == AddressTopic(p.From) && e.Topics[2] == p.Nonce
}

// isCancel reports whether the event is AuthorizationCanceled of this payment.
func (eip3009Trace) isCancel(p *Payment, e *Event) bool {
	return e.Address == p.Token && len(e.Topics) == 3 && e.Topics[0] == canceledTopic &&
		e.Topics[1] == AddressTopic(p.From) && e.Topics[2] == p.Nonce
}

// moved wants the use of the authorization and its transfer.
//
// One event proves one payment. In the transaction of somebody else that is not
// as easy as it sounds: who may put several calls into one transaction can use
// one authorization for a transfer to himself, and a second one for the only
// transfer to the payee. Tokens write AuthorizationUsed and its Transfer in
// succession, so that pair is what we want to see.
func (w eip3009Trace) moved(p *Payment, r *Receipt, alone bool) bool {
	var used, afterUsed, moved bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.Token {
			continue
		}
		switch {
		case w.isUse(p, e):
			used, afterUsed = true, true
			continue
		case e.isTransfer(p) && (alone || afterUsed):
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
func (w eip3009Trace) wentElsewhere(p *Payment, r *Receipt) bool {
	var afterUsed, elsewhere, toPayee, canceled bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.Token {
			continue
		}
		transfer := len(e.Topics) == 3 && e.Topics[0] == transferTopic && e.Topics[1] == AddressTopic(p.From)
		toPayee = toPayee || transfer && e.Topics[2] == AddressTopic(p.To)
		elsewhere = elsewhere || transfer && afterUsed
		canceled = canceled || w.isCancel(p, e)
		afterUsed = w.isUse(p, e)
	}
	return canceled || elsewhere && !toPayee
}
