package chain

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
	CodeNonceUsed    x402.Code = "invalid_exact_evm_nonce_already_used"
	CodePermit2Nonce x402.Code = "permit2_invalid_nonce"
	CodeUptoExceeds  x402.Code = "invalid_upto_evm_payload_settlement_exceeds_amount"
)

// ErrUnknownKind is for an authorization that is neither of EIP-3009 nor of Permit2.
var ErrUnknownKind = errors.New("the authorization is neither of EIP-3009 nor of Permit2")

// Payment is what a payer has signed, as far as a chain can tell what became of it: an
// authorization of EIP-3009 or of Permit2. Nothing here looks at the signature.
type Payment struct {
	Authorization   x402.Authorization
	From, To, Token common.Address // payer, payee, and the asset of the requirement
	// Value is what moves, in atomic units of the token: what was signed, or of upto
	// what is charged of it.
	Value uint256.Int
	Nonce [32]byte // of EIP-3009 or of Permit2; no chain uses it twice for a payer
	// Permit is what was signed for Permit2; nil if it is the token itself that moves the
	// money (EIP-3009).
	Permit *eip712.Permit
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
	isUse(p *Payment, e *Event) bool
	isCancel(p *Payment, e *Event) bool
	// onlyByCall: only the transaction itself tells whether an event of use is of this
	// payment; there may be events of others.
	onlyByCall() bool
	// moved reports whether a transaction has moved the money of this payment, and
	// of no other. alone says that the transaction is ours and does nothing else.
	moved(p *Payment, r *Receipt, alone bool) bool
	// wentElsewhere reports whether a transaction makes sure that this payment
	// never moves money.
	wentElsewhere(p *Payment, r *Receipt) bool
}

// Decode reads what a payer has signed for a requirement. It checks neither the signature nor
// that the two fit together. The error is ErrUnknownKind, or it is for a time too far away to
// be hashed; the Authorization is there also then.
func Decode(a x402.Authorization, r x402.Requirement) (Payment, error) {
	p := Payment{Authorization: a, Token: common.HexToAddress(r.Asset), Value: a.Value, Nonce: a.Nonce}
	switch a.Kind {
	case x402.KindEIP3009:
		t, err := eip712.TransferOf(a)
		p.From, p.To = t.From, t.To
		return p, err
	case x402.KindPermit2:
		permit, err := eip712.PermitOf(a)
		p.From, p.To, p.Permit = permit.From, permit.To, &permit
		return p, err
	}
	return p, ErrUnknownKind
}

// Signed decodes what the payer signed, with the amount that the requirement charges. It
// reports false for what is no payment of this requirement, or none that we settle. The
// signature itself is not looked at: whether it is any good, the contracts have decided by
// using it or not, and contract wallets have signatures that only the chain understands.
func Signed(r facilitator.Request) (*Payment, bool) {
	if r.Payment == nil || !common.IsHexAddress(r.Requirement.Asset) {
		return nil, false
	}
	a, err := r.Payment.Authorization(r.Requirement)
	if err != nil {
		return nil, false
	}
	p, err := Decode(a, r.Requirement)
	if err != nil {
		return nil, false
	}
	signedFor, err := p.Charge(r.Requirement)
	return &p, err == nil && p.Pays(signedFor)
}

// Pays reports whether what was signed is for this requirement, times apart: a payment that
// is not cannot share the fate of one with the same nonce that is.
func (p *Payment) Pays(r x402.Requirement) bool {
	a := p.Authorization
	a.ValidAfter, a.ValidBefore = 0, 0
	return a.Check(r, time.Unix(0, 0), 0, math.MaxInt64) == nil
}

// Upto reports whether the scheme is "upto", so that the seller may charge less than what was
// signed.
func (p *Payment) Upto() bool { return p.Authorization.Scheme == x402.SchemeUpto }

// Charge takes the amount of the requirement of a settlement for what is to be
// moved, and returns the requirement that the payer signed for. They differ for
// upto, where the seller charges what was used: at most what was signed. The error is an
// *x402.Error.
func (p *Payment) Charge(r x402.Requirement) (x402.Requirement, error) {
	if !p.Upto() {
		return r, nil
	}
	var amount uint256.Int
	if err := amount.SetFromDecimal(r.Amount); err != nil || amount.Dec() != r.Amount {
		return r, &x402.Error{Code: x402.CodePermit2Amount, Err: errors.New("the amount to charge is no number of atomic units")}
	}
	if amount.Gt(&p.Authorization.Value) {
		return r, &x402.Error{Code: CodeUptoExceeds, Err: errors.New("more than the payer signed")}
	}
	p.Value = amount
	r.Amount = p.Authorization.Value.Dec()
	return r, nil
}

func (p *Payment) trace() trace {
	if p.Permit != nil {
		return permit2Trace{p.Permit}
	}
	return eip3009Trace{}
}

// Keeper is the contract that keeps account of the nonces that are used: the token, or
// Permit2.
func (p *Payment) Keeper() common.Address { return p.trace().keeper(p) }

// AskUsed is the call data that asks the keeper whether the nonce is used: authorizationState
// of EIP-3009, or nonceBitmap of Permit2.
func (p *Payment) AskUsed() []byte { return p.trace().askUsed(p) }

// ReadUsed reads what the keeper returned to AskUsed; success says that the call was not
// reverted. ok is false if the contract does not tell. A nonce that the payer gave up counts
// as used.
func (p *Payment) ReadUsed(answer []byte, success bool) (used, ok bool) {
	if !success {
		return false, false
	}
	return p.trace().readUsed(answer)
}

// UsedCode is the code of the official facilitators for a nonce that is used.
func (p *Payment) UsedCode() x402.Code { return p.trace().usedCode() }

// OnlyByCall reports whether only the input of a transaction tells of which payment it is:
// Permit2 writes no event with the nonce, EIP-3009 does.
func (p *Payment) OnlyByCall() bool { return p.trace().onlyByCall() }

// IsUse reports whether an event may be of a use of the nonce.
func (p *Payment) IsUse(e *Event) bool { return !e.Removed && p.trace().isUse(p, e) }

// IsCancel reports whether an event says that the payer gave up the nonce.
func (p *Payment) IsCancel(e *Event) bool { return !e.Removed && p.trace().isCancel(p, e) }

// uses reports whether a transaction has used the authorization at all.
func (p *Payment) uses(r *Receipt) bool {
	return slices.ContainsFunc(r.Logs, func(e Event) bool { return p.IsUse(&e) })
}

// own picks the events that may be of this authorization: not every node filters
// well.
func (p *Payment) own(events []Event) []Event {
	var list []Event
	for _, e := range events {
		if p.IsUse(&e) || p.IsCancel(&e) {
			list = append(list, e)
		}
	}
	return list
}
