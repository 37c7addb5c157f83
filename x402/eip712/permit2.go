package eip712

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Permit2 is the contract that moves tokens by signature. It has the same
// address on every chain.
var Permit2 = common.HexToAddress("0x000000000022D473030F116dDEE9F6B43aC78BA3")

// The type hashes of what payers sign for Permit2. The witness binds the
// recipient, and for the scheme upto whoever may settle.
var (
	permit2Domain   = crypto.Keccak256Hash([]byte("EIP712Domain(string name,uint256 chainId,address verifyingContract)"))
	permit2Name     = crypto.Keccak256Hash([]byte("Permit2"))
	permittedType   = crypto.Keccak256Hash([]byte(permittedText))
	exactPermitType = crypto.Keccak256Hash([]byte(permitText + permittedText + exactWitnessText))
	uptoPermitType  = crypto.Keccak256Hash([]byte(permitText + permittedText + uptoWitnessText))
	exactWitness    = crypto.Keccak256Hash([]byte(exactWitnessText))
	uptoWitness     = crypto.Keccak256Hash([]byte(uptoWitnessText))
)

const (
	permitText       = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)"
	permittedText    = "TokenPermissions(address token,uint256 amount)"
	exactWitnessText = "Witness(address to,uint256 validAfter)"
	uptoWitnessText  = "Witness(address to,address facilitator,uint256 validAfter)"
)

// Permit is the message by which a payer lets a proxy of x402 move a token
// through Permit2.
type Permit struct {
	From, Token, Spender, To common.Address
	// Facilitator is who may settle; only with Upto.
	Facilitator          common.Address
	Upto                 bool
	Amount, Nonce        uint256.Int
	Deadline, ValidAfter uint64
}

// PermitOf returns what the payer of a Permit2 authorization signed. The error
// is ErrNotJudged: for another kind, and for a time so far away that the
// authorization holds only its stand-in.
func PermitOf(a x402.Authorization) (Permit, error) {
	if a.Kind != x402.KindPermit2 {
		return Permit{}, fmt.Errorf("%w: its kind is not %s", ErrNotJudged, x402.KindPermit2)
	}
	p := Permit{Upto: a.Scheme == x402.SchemeUpto, Amount: a.Value}
	p.Nonce.SetBytes32(a.Nonce[:])
	ok := a.ValidAfter >= 0 && a.ValidBefore >= 0
	addresses := []struct {
		to   *common.Address
		text string
	}{{&p.From, a.Payer}, {&p.Token, a.Token}, {&p.Spender, a.Spender}, {&p.To, a.To}, {&p.Facilitator, a.Facilitator}}
	if !p.Upto {
		addresses = addresses[:4]
	}
	for _, address := range addresses {
		var read bool
		*address.to, read = parseAddress(address.text)
		ok = ok && read
	}
	if !ok {
		return Permit{}, fmt.Errorf("%w: it was not decoded", ErrNotJudged)
	}
	if a.ValidAfter == math.MaxInt64 || a.ValidBefore == math.MaxInt64 {
		return Permit{}, fmt.Errorf("%w: it begins or ends too far in the future", ErrNotJudged)
	}
	p.ValidAfter, p.Deadline = uint64(a.ValidAfter), uint64(a.ValidBefore)
	return p, nil
}

// Permit2Domain returns the domain separator of Permit2 on a chain.
func Permit2Domain(chainID uint64) Domain {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset()
	s.word(permit2Domain)
	s.word(permit2Name)
	s.uint(chainID)
	s.address(Permit2)
	return Domain(s.sum())
}

// PermitDigest returns what the payer's signature is over.
func (d Domain) PermitDigest(p *Permit) [32]byte {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset()
	s.word(permittedType)
	s.address(p.Token)
	s.word(p.Amount.Bytes32())
	permitted := s.sum()

	s.reset()
	permitType := exactPermitType
	if p.Upto {
		permitType = uptoPermitType
		s.word(uptoWitness)
		s.address(p.To)
		s.address(p.Facilitator)
	} else {
		s.word(exactWitness)
		s.address(p.To)
	}
	s.uint(p.ValidAfter)
	witness := s.sum()

	s.reset()
	s.word(permitType)
	s.word(permitted)
	s.address(p.Spender)
	s.word(p.Nonce.Bytes32())
	s.uint(p.Deadline)
	s.word(witness)
	return s.typed(d, s.sum())
}

// chainOf returns the chain id of an EVM network.
func chainOf(network string) (uint64, bool) {
	chain, isEVM := strings.CutPrefix(network, "eip155:")
	id, err := strconv.ParseUint(chain, 10, 64)
	return id, isEVM && err == nil && id != 0
}

// permitSigned is SignedByPayer for Permit2.
func permitSigned(a x402.Authorization, r x402.Requirement) (bool, error) {
	p, err := PermitOf(a)
	if err != nil {
		return false, err
	}
	chain, ok := chainOf(r.Network)
	if !ok {
		return false, fmt.Errorf("%w: the network is no EVM chain", ErrNotJudged)
	}
	signer, err := Recover(Permit2Domain(chain).PermitDigest(&p), a.Signature)
	return err == nil && signer == p.From, nil
}
