package eip712

import (
	"bytes"
	"errors"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Signature is an ECDSA signature in the one form that tokens take: V is 27 or
// 28, and S the lower of its two possible values.
type Signature struct {
	R, S [32]byte
	V    byte
}

// Errors of ParseSignature.
var (
	errLength = errors.New("signature is not 65 bytes long")
	errV      = errors.New("last byte of the signature is none of 0, 1, 27 and 28")
	errHighS  = errors.New("s of the signature is the higher of its two values, which tokens refuse")
	errZero   = errors.New("r or s of the signature is zero")
)

// errNobody is for a signature that belongs to no key.
var errNobody = errors.New("nobody made this signature")

// halfOrder is half the order of secp256k1, the highest s that tokens take.
var halfOrder = common.FromHex("0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")

// ParseSignature reads r, s and v. A v of 0 or 1, as some libraries write it, is
// made 27 or 28. A high s is refused: OpenZeppelin's and Circle's tokens do, and
// with both values of s one authorization would have two signatures.
func ParseSignature(b []byte) (Signature, error) {
	var s Signature
	if len(b) != crypto.SignatureLength {
		return s, errLength
	}
	copy(s.R[:], b)
	copy(s.S[:], b[32:])
	s.V = b[64]
	if s.V < 27 {
		s.V += 27
	}
	switch {
	case s.V != 27 && s.V != 28:
		return Signature{}, errV
	case s.R == [32]byte{} || s.S == [32]byte{}:
		return Signature{}, errZero
	case bytes.Compare(s.S[:], halfOrder) > 0:
		return Signature{}, errHighS
	}
	return s, nil
}

// Recover returns the account whose key signed the digest.
func (s Signature) Recover(digest [32]byte) (common.Address, error) {
	sc := scratchPool.Get().(*scratch)
	defer scratchPool.Put(sc)
	// Both go through an interface or through C, which would move copies on the
	// stack to the heap.
	copy(sc.digest[:], digest[:])
	copy(sc.signature[:], s.R[:])
	copy(sc.signature[32:], s.S[:])
	sc.signature[64] = s.V - 27
	key, err := crypto.Ecrecover(sc.digest[:], sc.signature[:])
	if err != nil || len(key) != 65 {
		return common.Address{}, errNobody
	}
	sc.reset()
	sc.bytes(key[1:])
	sum := sc.sum()
	return common.Address(sum[12:]), nil
}

// Recover returns the account whose key signed the digest. The errors are those
// of ParseSignature, and that nobody can have made the signature.
func Recover(digest [32]byte, signature []byte) (common.Address, error) {
	s, err := ParseSignature(signature)
	if err != nil {
		return common.Address{}, err
	}
	return s.Recover(digest)
}
