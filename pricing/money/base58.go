package money

import (
	"math/big"
	"strings"
)

const base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// solanaKeyLength is the length of a Solana public key in bytes.
const solanaKeyLength = 32

// maxBase58 is how long the base58 spelling of such a key can be. Longer texts
// are not decoded: the cost grows with the square of their length.
const maxBase58 = 44

// decodeBase58 decodes the alphabet of Bitcoin, in which a leading 1 is a zero
// byte, so that every value has exactly one spelling.
func decodeBase58(s string) ([]byte, bool) {
	if s == "" || len(s) > maxBase58 {
		return nil, false
	}
	n, radix := new(big.Int), big.NewInt(int64(len(base58Alphabet)))
	for i := range len(s) {
		digit := strings.IndexByte(base58Alphabet, s[i])
		if digit < 0 {
			return nil, false
		}
		n.Mul(n, radix).Add(n, big.NewInt(int64(digit)))
	}
	zeros := len(s) - len(strings.TrimLeft(s, "1"))
	return append(make([]byte, zeros), n.Bytes()...), true
}
