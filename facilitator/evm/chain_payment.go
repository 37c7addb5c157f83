package evm

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Codes of the official facilitators for what a chain tells of a payment.
const (
	codeNonceUsed    x402.Code = "invalid_exact_evm_nonce_already_used"
	codePermit2Nonce x402.Code = "permit2_invalid_nonce"
	codeUptoExceeds  x402.Code = "invalid_upto_evm_payload_settlement_exceeds_amount"
)

// errUnknownKind is for an authorization that is neither of EIP-3009 nor of Permit2.
var errUnknownKind = errors.New("the authorization is neither of EIP-3009 nor of Permit2")

// Payment is what a payer has signed, as far as a chain can tell what became of it.
// Nothing here looks at the signature.
type Payment struct {
	authorization   x402.Authorization
	from, to, token common.Address
	// value is what moves, in atomic units of the token: what was signed, or of upto
	// what is charged of it.
	value uint256.Int
	nonce [32]byte
	// permit is what was signed for Permit2; nil if it is the token itself that moves the
	// money (EIP-3009).
	permit *eip712.Permit
}

// trace is what contracts show of a payment: the token itself (EIP-3009), or the token,
// Permit2 and its proxy.
type trace interface {
	// keeper is the contract that keeps account of used nonces, askUsed the
	// question to it, and readUsed reads its answer.
	keeper(p *Payment) common.Address
	askUsed(p *Payment) []byte
	readUsed(answer []byte) (used, ok bool)
	// usedCode refuses a payment whose nonce is used.
	usedCode() x402.Code

	// filter is what eth_getLogs is asked for to find out what became of the
	// payment, apart from the blocks.
	filter(p *Payment) map[string]any
	// isUse reports whether the event may be of this payment, and isCancel whether
	// it says that the payer cancelled it.
	isUse(p *Payment, e *event) bool
	isCancel(p *Payment, e *event) bool
	// onlyByCall: only the transaction itself tells whether an event of use is of this
	// payment; there may be events of others.
	onlyByCall() bool
	// moved reports whether a transaction has moved the money of this payment, and
	// of no other. alone says that the transaction is ours and does nothing else.
	moved(p *Payment, r *receipt, alone bool) bool
	// wentElsewhere reports whether a transaction makes sure that this payment
	// never moves money.
	wentElsewhere(p *Payment, r *receipt) bool
}

// decodePayment reads what a payer has signed for a requirement. It checks neither the
// signature nor that the two fit together. The error is errUnknownKind, or it is for a
// time too far away to be hashed; the payer of the payment is known also then.
func decodePayment(a x402.Authorization, r x402.Requirement) (Payment, error) {
	p := Payment{authorization: a, token: common.HexToAddress(r.Asset), value: a.Value, nonce: a.Nonce}
	switch a.Kind {
	case x402.KindEIP3009:
		t, err := eip712.TransferOf(a)
		p.from, p.to = t.From, t.To
		return p, err
	case x402.KindPermit2:
		permit, err := eip712.PermitOf(a)
		p.from, p.to, p.permit = permit.From, permit.To, &permit
		return p, err
	}
	return p, errUnknownKind
}

// signed decodes what the payer signed. The signature itself is not looked at:
// whether it is any good, the contracts have decided by using it or not, and
// contract wallets have signatures that only the chain understands.
func signed(r facilitator.Request) (*Payment, bool) {
	if r.Payment == nil || !common.IsHexAddress(r.Requirement.Asset) {
		return nil, false
	}
	a, err := r.Payment.Authorization(r.Requirement)
	if err != nil {
		return nil, false
	}
	p, err := decodePayment(a, r.Requirement)
	if err != nil {
		return nil, false
	}
	signedFor, err := p.charge(r.Requirement)
	return &p, err == nil && p.pays(signedFor)
}

// pays reports whether the payment is for this requirement, times apart: only
// then can it share the fate of an earlier one.
func (p *Payment) pays(r x402.Requirement) bool {
	a := p.authorization
	a.ValidAfter, a.ValidBefore = 0, 0
	return a.Check(r, time.Unix(0, 0), 0, math.MaxInt64) == nil
}

// upto reports whether the seller may charge less than what was signed.
func (p *Payment) upto() bool { return p.authorization.Scheme == x402.SchemeUpto }

// charge takes the amount of the requirement of a settlement for what is to be
// moved, and returns the requirement that the payer signed for. They differ for
// upto, where the seller charges what was used: at most what was signed. The error is an
// *x402.Error.
func (p *Payment) charge(r x402.Requirement) (x402.Requirement, error) {
	if !p.upto() {
		return r, nil
	}
	var amount uint256.Int
	if err := amount.SetFromDecimal(r.Amount); err != nil || amount.Dec() != r.Amount {
		return r, &x402.Error{Code: x402.CodePermit2Amount, Err: errors.New("the amount to charge is no number of atomic units")}
	}
	if amount.Gt(&p.authorization.Value) {
		return r, &x402.Error{Code: codeUptoExceeds, Err: errors.New("more than the payer signed")}
	}
	p.value = amount
	r.Amount = p.authorization.Value.Dec()
	return r, nil
}

func (p *Payment) trace() trace {
	if p.permit != nil {
		return permit2Trace{p.permit}
	}
	return eip3009Trace{}
}

// keeper is the contract that keeps account of the nonces that are used: the token, or
// Permit2.
func (p *Payment) keeper() common.Address { return p.trace().keeper(p) }

// askUsed is the call that asks the keeper whether the nonce is used.
func (p *Payment) askUsed() []byte { return p.trace().askUsed(p) }

// readUsed reads the answer of the keeper; success says that the call was not reverted. It
// reports ok if the contract tells at all. A nonce that the payer gave up is used, too.
func (p *Payment) readUsed(answer []byte, success bool) (used, ok bool) {
	if !success {
		return false, false
	}
	return p.trace().readUsed(answer)
}

// usedCode refuses the payment because its nonce is used.
func (p *Payment) usedCode() x402.Code { return p.trace().usedCode() }

// onlyByCall reports that events alone do not tell of which payment they are, so that the
// call of their transaction has to: of Permit2, which writes no nonce.
func (p *Payment) onlyByCall() bool { return p.trace().onlyByCall() }

// isUse reports whether an event may be of a use of the nonce.
func (p *Payment) isUse(e *event) bool { return !e.Removed && p.trace().isUse(p, e) }

// isCancel reports whether an event says that the payer gave up the nonce.
func (p *Payment) isCancel(e *event) bool { return !e.Removed && p.trace().isCancel(p, e) }

// uses reports whether a transaction has used the authorization at all.
func (p *Payment) uses(r *receipt) bool {
	return slices.ContainsFunc(r.Logs, func(e event) bool { return p.isUse(&e) })
}

// own picks the events that may be of this authorization: not every node filters
// well.
func (p *Payment) own(events []event) []event {
	var list []event
	for _, e := range events {
		if p.isUse(&e) || p.isCancel(&e) {
			list = append(list, e)
		}
	}
	return list
}
