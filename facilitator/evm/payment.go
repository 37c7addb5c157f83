package evm

import (
	"bytes"
	"errors"
	"math"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// minLife is how much longer an authorization must live, as for the official
// facilitators: time enough to reach the next block.
const minLife = 6 * time.Second

// noMaxLife: how long an authorization may live is a matter of who remembers
// it, which is not the facilitator.
const noMaxLife = time.Duration(math.MaxInt64)

// errNotOurs is for a payment that is for another facilitator to judge.
var errNotOurs = errors.New("this facilitator settles exact and upto, with EIP-3009 and Permit2")

// payment is a decoded payment.
type payment struct {
	way
	chain.Payment
	digest [32]byte

	signer    signer
	learned   bool                           // it is clear that it is not the key alone that signs
	base      *big.Int                       // the base fee then; nil if the chain has none
	code      common.Hash                    // of the payer, then; see codeHash
	signature []byte                         // as the contracts take it
	factory   *deployment                    // of a wallet that may not exist yet; else nil
	approval  *approval                      // what the payer signed to let Permit2 move the token; else nil
	account   *account                       // of ours, that settles it; nil until it is chosen
	place     *place                         // that the payment has there; nil while it has none
	solo      bool                           // it was not sent together with others, and goes alone
	doubtful  bool                           // a node has refused a transaction with it, which is no proof that nobody has it
	announce  func(transaction string) error // is told of a transaction before it is sent; nil if nobody wants to know
	earlier   string                         // transaction that an earlier process was about to send; "" if none
	walletGas uint64                         // what the code of its payer may use
	limit     uint64                         // of the gas, as a node has estimated it; 0 is the usual one

	// What settles it, made once.
	target   common.Address
	calldata []byte
}

// way is how the money of a payment moves: by the token itself (EIP-3009) or by
// Permit2.
type way interface {
	// call encodes the settlement, and returns the contract that it is for.
	call(p *payment) (common.Address, []byte)

	// questions lists what is asked when a simulation failed, and reason makes a
	// code of the answers.
	questions(p *payment) []call3
	reason(p *payment, r x402.Requirement, answers []result3) x402.Code

	codes() codes
}

// codes are what a way calls the same findings; that the nonce is used, see
// Payment.usedCode.
type codes struct{ signature, transaction x402.Code }

// claim is what one payment is known by on one chain: the keys under which the contracts
// themselves keep its nonce.
type claim struct {
	keeper, payer common.Address
	nonce         [32]byte
}

func (p *payment) claim() claim { return claim{p.Keeper(), p.From, p.Nonce} }

// read decodes a payment, and finds out how it was signed as far as that needs
// no chain. Refusals are *x402.Error; errNotOurs is for what somebody else may
// settle.
func read(r facilitator.Request) (*payment, error) {
	if r.Payment == nil {
		return nil, errors.New("request without a payment")
	}
	if err := chosen(r); err != nil {
		return nil, err
	}
	a, err := r.Payment.Authorization(r.Requirement)
	if err != nil {
		refused, ok := errors.AsType[*x402.Error](err)
		switch {
		case ok && refused.Code == x402.CodeUnsupportedAuthorization:
			return nil, errNotOurs
		case ok && refused.Code == x402.CodePaymentMalformed && r.Requirement.Scheme == x402.SchemeUpto:
			return nil, &x402.Error{Code: x402.CodeUnsupportedPayload, Err: refused.Err}
		}
		return nil, err
	}
	p, err := decode(a, r.Requirement)
	if err != nil {
		return p, err
	}
	return p, p.readSignature()
}

// chosen checks that payment and requirement are of one scheme and network, and
// that the requirement can be met.
func chosen(r facilitator.Request) error {
	permit2, upto := byPermit2(r.Requirement), r.Requirement.Scheme == x402.SchemeUpto
	switch {
	case r.Requirement.Scheme == r.Payment.Scheme && (upto || r.Requirement.Scheme == x402.SchemeExact):
	case upto:
		return refuse(codeUptoScheme, "scheme is not upto")
	case permit2:
		return refuse(x402.CodeUnsupportedPayload, "scheme is not exact")
	default:
		return refuse(codeScheme, "scheme is not exact")
	}
	if !permit2 {
		if _, err := eip712.DomainOf(r.Requirement); err != nil {
			return &x402.Error{Code: codeDomain, Err: err}
		}
	}
	switch {
	case r.Payment.Network == r.Requirement.Network:
		return nil
	case upto:
		return refuse(codeUptoNetwork, "payment for another network")
	}
	return refuse(codeNetwork, "payment for another network")
}

// byPermit2 reports whether a requirement is for Permit2.
func byPermit2(r x402.Requirement) bool {
	if r.Scheme == x402.SchemeUpto {
		return true
	}
	if !bytes.Contains(r.Extra, []byte(x402.KindPermit2)) {
		return false // as nearly always; what writes it with escapes is none of ours
	}
	var extra struct {
		AssetTransferMethod string `json:"assetTransferMethod"`
	}
	return json.Unmarshal(r.Extra, &extra) == nil && extra.AssetTransferMethod == x402.KindPermit2
}

// decode makes a payment of an authorization, without a look at its signature.
func decode(a x402.Authorization, r x402.Requirement) (*payment, error) {
	signed, err := chain.Decode(a, r)
	p := &payment{Payment: signed}
	switch {
	case errors.Is(err, chain.ErrUnknownKind):
		return p, errNotOurs
	case err != nil:
		return p, errBeyond()
	}
	return p, p.settles(r)
}

// errBeyond is for a time too far away to be hashed, which no payer means.
func errBeyond() error {
	return refuse(x402.CodeLifetimeTooLong, "begins or ends beyond all calendars")
}

// check compares what was signed with the requirement and the clock, in the
// order of the official facilitators. least is how long it must still live.
func (p *payment) check(r x402.Requirement, now time.Time, least time.Duration) error {
	if err := p.Authorization.Check(r, now, least, noMaxLife); err != nil {
		return err
	}
	// Check is lenient with clocks that differ. The contracts are not, and we
	// settle at once.
	if p.Authorization.ValidAfter > now.Unix() {
		if p.Authorization.Kind == x402.KindPermit2 {
			return refuse(x402.CodePermit2NotYetValid, "begins in the future")
		}
		return refuse(x402.CodeValidAfter, "begins in the future")
	}
	return nil
}

// encoded returns the call that moves the money, and the contract it is for.
func (p *payment) encoded() (common.Address, []byte) {
	if p.calldata == nil {
		p.target, p.calldata = p.call(p)
		if p.signer == byFactory {
			p.target, p.calldata = p.factory.before(p.target, p.calldata)
		}
	}
	return p.target, p.calldata
}

// origin says what a transaction may have done beside the payment. shared is how many
// payments it is for: 0 for one of ours that does nothing but this payment, or foreignCall.
func (p *payment) origin(shared int) chain.Origin {
	switch {
	case shared == foreignCall:
		return chain.Foreign
	case shared > 0:
		return chain.Among
	case p.signer == byFactory:
		return chain.Prepared // what a factory does first, the payer has chosen
	}
	return chain.Alone
}

// foreignCall says that a transaction is not ours, and may do whatever else.
const foreignCall = -1

// signedPayment is read for a caller who only wants to know which payment it is: it checks no
// signature and refuses with no code.
func signedPayment(r facilitator.Request) (*payment, bool) {
	signedFor, ok := chain.Signed(r)
	if !ok {
		return nil, false
	}
	p := &payment{Payment: *signedFor}
	return p, p.settles(r.Requirement) == nil
}

// settles takes the way by which the money of the payment moves.
func (p *payment) settles(r x402.Requirement) error {
	if p.Permit != nil {
		p.settlesPermit2(r)
		return nil
	}
	return p.settlesEIP3009(r)
}
