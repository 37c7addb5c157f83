package evm

import (
	"bytes"
	"errors"
	"math"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/eip712"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Codes of the official facilitators for what this package finds out.
const (
	codeScheme          x402.Code = "invalid_exact_evm_scheme"
	codeDomain          x402.Code = "invalid_exact_evm_missing_eip712_domain"
	codeNetwork         x402.Code = "invalid_exact_evm_network_mismatch"
	codeFactory         x402.Code = "eip6492_factory_not_allowed"
	codeAsset           x402.Code = "asset_not_deployed_contract"
	codeNotEIP3009      x402.Code = "invalid_exact_evm_eip3009_not_supported"
	codeNonceUsed       x402.Code = "invalid_exact_evm_nonce_already_used"
	codeTokenName       x402.Code = "invalid_exact_evm_token_name_mismatch"
	codeTokenVersion    x402.Code = "invalid_exact_evm_token_version_mismatch"
	codeBalance         x402.Code = "invalid_exact_evm_insufficient_balance"
	codeSimulation      x402.Code = "invalid_exact_evm_transaction_simulation_failed"
	codeTransaction     x402.Code = "invalid_exact_evm_transaction_failed"
	codeEventMismatch   x402.Code = "invalid_exact_evm_transfer_event_mismatch"
	codeValueMismatchV1 x402.Code = "invalid_exact_evm_authorization_value"
)

// minLife is how much longer an authorization must live, as for the official
// facilitators: time enough to reach the next block.
const minLife = 6 * time.Second

// noMaxLife: how long an authorization may live is a matter of who remembers
// it, which is not the facilitator.
const noMaxLife = time.Duration(math.MaxInt64)

// errNotOurs is for a payment that is for another facilitator to judge.
var errNotOurs = errors.New("this facilitator settles exact with EIP-3009 only")

// payment is a decoded payment that its payer did sign.
type payment struct {
	eip712.Transfer
	signature     eip712.Signature
	digest        [32]byte
	token         common.Address
	authorization x402.Authorization
	calldata      []byte
}

// claim is what one payment is known by on one chain: what the token itself
// keeps account of.
type claim struct {
	token, payer common.Address
	nonce        [32]byte
}

func (p *payment) claim() claim { return claim{p.token, p.From, p.Nonce} }

// magic6492 is what the signatures of wallets end with that do not exist yet.
var magic6492 = bytes.Repeat([]byte{0x64, 0x92}, 16)

// read decodes a payment and checks what needs neither clock nor chain: wire
// order, from the scheme to the signature. Refusals are *x402.Error; errNotOurs
// is for what somebody else may settle.
func read(r facilitator.Request) (*payment, error) {
	if r.Payment == nil {
		return nil, errors.New("request without a payment")
	}
	if r.Requirement.Scheme != "exact" || r.Payment.Scheme != "exact" {
		return nil, refuse(codeScheme, "scheme is not exact")
	}
	domain, err := eip712.DomainOf(r.Requirement)
	if err != nil {
		return nil, &x402.Error{Code: codeDomain, Err: err}
	}
	if r.Payment.Network != r.Requirement.Network {
		return nil, refuse(codeNetwork, "payment for another network")
	}
	a, err := r.Payment.Authorization(r.Requirement)
	if err != nil {
		if refused, ok := errors.AsType[*x402.Error](err); ok && refused.Code == x402.CodeUnsupportedAuthorization {
			return nil, errNotOurs
		}
		return nil, err
	}
	return sign(a, r.Requirement, domain)
}

// sign checks the signature of an authorization.
func sign(a x402.Authorization, r x402.Requirement, domain eip712.Domain) (*payment, error) {
	if a.Kind != x402.KindEIP3009 {
		return nil, errNotOurs
	}
	p := &payment{authorization: a}
	if bytes.HasSuffix(a.Signature, magic6492) {
		return p, refuse(codeFactory, "an ERC-6492 wallet: none are supported")
	}
	var err error
	if p.Transfer, err = eip712.TransferOf(a); err != nil {
		// Too far away to be hashed, and no time that any payer means.
		return p, refuse(x402.CodeLifetimeTooLong, "begins or ends beyond all calendars")
	}
	if p.signature, err = eip712.ParseSignature(a.Signature); err != nil {
		return p, &x402.Error{Code: x402.CodeSignature, Err: err}
	}
	p.digest = domain.TransferDigest(&p.Transfer)
	signer, err := p.signature.Recover(p.digest)
	if err != nil || signer != p.From {
		return p, refuse(x402.CodeSignature, "not signed by the payer's key")
	}
	p.token = common.HexToAddress(r.Asset)
	return p, nil
}

// check compares what was signed with the requirement and the clock, in the
// order of the official facilitators.
func (p *payment) check(r x402.Requirement, now time.Time) error {
	if err := p.authorization.Check(r, now, minLife, noMaxLife); err != nil {
		return err
	}
	// Check is lenient with clocks that differ. The token is not, and we settle
	// at once.
	if p.authorization.ValidAfter > now.Unix() {
		return refuse(x402.CodeValidAfter, "begins in the future")
	}
	return nil
}

// encoded returns the call that moves the money.
func (p *payment) encoded() []byte {
	if p.calldata == nil {
		p.calldata = transferCalldata(&p.Transfer, p.signature)
	}
	return p.calldata
}

// refuse makes a refusal with a constant cause.
func refuse(c x402.Code, cause string) *x402.Error {
	return &x402.Error{Code: c, Err: errors.New(cause)}
}

// codeOf returns the code of a refusal, in the words of the payment's version.
func codeOf(refused *x402.Error, r facilitator.Request) string {
	if refused.Code == x402.CodeValueMismatch && r.Payment.Version == x402.V1 {
		return string(codeValueMismatchV1)
	}
	return string(refused.Code)
}
