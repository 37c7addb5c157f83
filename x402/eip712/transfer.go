package eip712

import (
	"errors"
	"fmt"
	"math"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// ErrNotJudged is for an authorization of which this package cannot tell who
// signed it.
var ErrNotJudged = errors.New("cannot judge this signature")

// transferType is the type hash of EIP-3009's TransferWithAuthorization.
var transferType = crypto.Keccak256Hash([]byte("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"))

// Transfer is the message of EIP-3009 that moves money.
type Transfer struct {
	From, To                common.Address
	Value                   uint256.Int
	ValidAfter, ValidBefore uint64
	Nonce                   [32]byte
}

// TransferOf returns what the payer of an EIP-3009 authorization signed. The
// error is ErrNotJudged: for another kind, and for a time so far away that the
// authorization holds only its stand-in.
func TransferOf(a x402.Authorization) (Transfer, error) {
	if a.Kind != x402.KindEIP3009 {
		return Transfer{}, fmt.Errorf("%w: its kind is not %s", ErrNotJudged, x402.KindEIP3009)
	}
	from, ok := parseAddress(a.Payer)
	to, ok2 := parseAddress(a.To)
	if !ok || !ok2 || a.ValidAfter < 0 || a.ValidBefore < 0 {
		return Transfer{}, fmt.Errorf("%w: it was not decoded", ErrNotJudged)
	}
	if a.ValidAfter == math.MaxInt64 || a.ValidBefore == math.MaxInt64 {
		return Transfer{}, fmt.Errorf("%w: it begins or ends too far in the future", ErrNotJudged)
	}
	return Transfer{
		From: from, To: to, Value: a.Value,
		ValidAfter: uint64(a.ValidAfter), ValidBefore: uint64(a.ValidBefore),
		Nonce: a.Nonce,
	}, nil
}

// TransferDigest returns what the payer's signature is over.
func (d Domain) TransferDigest(t *Transfer) [32]byte {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset()
	s.word(transferType)
	s.address(t.From)
	s.address(t.To)
	s.word(t.Value.Bytes32())
	s.uint(t.ValidAfter)
	s.uint(t.ValidBefore)
	s.word(t.Nonce)
	return s.typed(d, s.sum())
}

// SignedByPayer reports whether the payer's own key signed the authorization,
// for the asset of the requirement, in a form that tokens take. It asks nobody.
//
// Not signed does not mean worthless: the payer may be a contract, which alone
// knows whose signatures it takes. Who knows that the payer has no code can
// refuse. The error is ErrNotJudged: for other kinds than EIP-3009 and Permit2,
// and for an EIP-3009 requirement without the domain of its asset.
func SignedByPayer(a x402.Authorization, r x402.Requirement) (bool, error) {
	if a.Kind == x402.KindPermit2 {
		return permitSigned(a, r)
	}
	t, err := TransferOf(a)
	if err != nil {
		return false, err
	}
	d, err := DomainOf(r)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotJudged, err)
	}
	signer, err := Recover(d.TransferDigest(&t), a.Signature)
	return err == nil && signer == t.From, nil
}
