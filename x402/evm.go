package x402

import (
	"encoding/hex"
	"math"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"
	"golang.org/x/crypto/sha3"
)

// address is an EVM account or contract.
type address [20]byte

// parseAddress reads 0x and 40 hexadecimal digits of any case. The checksum is
// not asked for: clients send all three spellings.
func parseAddress(s string) (a address, ok bool) {
	return a, parseHex(a[:], s)
}

// parseHex fills dst from 0x and exactly two digits for each byte.
func parseHex(dst []byte, s string) bool {
	if len(s) != 2+2*len(dst) || !strings.HasPrefix(s, "0x") {
		return false
	}
	_, err := hex.Decode(dst, []byte(s[2:]))
	return err == nil
}

// checksum spells the address with the mixed case of EIP-55.
func (a address) checksum() string {
	var s [42]byte
	copy(s[:], "0x")
	hex.Encode(s[2:], a[:])
	h := sha3.NewLegacyKeccak256()
	h.Write(s[2:])
	var sum [32]byte
	h.Sum(sum[:0])
	for i := range 40 {
		nibble := sum[i/2] >> 4
		if i%2 == 1 {
			nibble = sum[i/2] & 0xf
		}
		if c := &s[2+i]; nibble >= 8 && *c >= 'a' {
			*c -= 'a' - 'A'
		}
	}
	return string(s[:])
}

// spell returns how r spells the address if ours is the same, else EIP-55.
// Mostly they are the same, and a checksum costs a hash.
func (a address) spell(ours string) string {
	if b, ok := parseAddress(ours); ok && a == b {
		return ours
	}
	return a.checksum()
}

// sameAddress compares two spellings as bytes.
func sameAddress(a, b string) bool {
	x, ok := parseAddress(a)
	y, ok2 := parseAddress(b)
	return ok && ok2 && x == y
}

// parseUint reads a decimal of at most 2^256-1, spelled in the one way:
// ^(0|[1-9][0-9]{0,77})$.
func parseUint(s string) (n uint256.Int, ok bool) {
	if s == "" || len(s) > 78 || s[0] == '0' && len(s) > 1 {
		return n, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return n, false
		}
	}
	return n, n.SetFromDecimal(s) == nil
}

// seconds caps a Unix time: what does not fit is centuries away.
func seconds(n uint256.Int) int64 {
	if !n.IsUint64() || n.Uint64() > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(n.Uint64()) //nolint:gosec // capped above
}

// maxSignature bounds a contract wallet's signature, in bytes. The header is
// bounded too; this is for payments that come another way.
const maxSignature = 8 << 10

// signature reads a signature of 65 bytes, or more for contract wallets. What
// is shorter could only be the compact form of ERC-2098, which no token takes.
func signature(v jsontext.Value, code Code) ([]byte, *Error) {
	s, ok := text(v)
	if !ok || len(s) > 2+2*maxSignature || len(s) < 2 || len(s)%2 != 0 {
		return nil, refuse(CodePaymentMalformed, "signature: not 0x and hexadecimal digits")
	}
	b := make([]byte, len(s)/2-1)
	if !parseHex(b, s) {
		return nil, refuse(CodePaymentMalformed, "signature: not 0x and hexadecimal digits")
	}
	if len(b) < 65 {
		return nil, refuse(code, "signature: shorter than 65 bytes")
	}
	return b, nil
}

// reader reads the members of one object and keeps the first error.
type reader struct {
	object string
	err    *Error
}

func (r *reader) fail(member, cause string) {
	if r.err == nil {
		r.err = refuse(CodePaymentMalformed, r.object+"."+member+": "+cause)
	}
}

func (r *reader) address(v jsontext.Value, member string) address {
	s, _ := text(v)
	a, ok := parseAddress(s)
	if !ok {
		r.fail(member, "not an address: 0x and 40 hexadecimal digits")
	}
	return a
}

func (r *reader) bytes32(v jsontext.Value, member string) (b [32]byte) {
	s, _ := text(v)
	if !parseHex(b[:], s) {
		r.fail(member, "not 0x and 64 hexadecimal digits")
	}
	return b
}

func (r *reader) uint(v jsontext.Value, member string) uint256.Int {
	s, _ := text(v)
	n, ok := parseUint(s)
	if !ok {
		r.fail(member, "not a string of decimal digits below 2^256")
	}
	return n
}
