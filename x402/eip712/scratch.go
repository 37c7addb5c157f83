package eip712

import (
	"encoding/binary"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// scratch is the working memory of one digest. It is pooled, because what goes
// into a hash through its interface cannot stay on the stack.
type scratch struct {
	hash      crypto.KeccakState
	buf       []byte
	out       [32]byte
	digest    [32]byte
	signature [crypto.SignatureLength]byte
}

var scratchPool = sync.Pool{New: func() any {
	return &scratch{hash: crypto.NewKeccakState(), buf: make([]byte, 0, 8*32)}
}}

func (s *scratch) reset() { s.buf = s.buf[:0] }

func (s *scratch) bytes(b []byte) { s.buf = append(s.buf, b...) }

func (s *scratch) word(w [32]byte) { s.buf = append(s.buf, w[:]...) }

func (s *scratch) address(a common.Address) {
	var w [32]byte
	copy(w[12:], a[:])
	s.word(w)
}

func (s *scratch) uint(n uint64) {
	var w [32]byte
	binary.BigEndian.PutUint64(w[24:], n)
	s.word(w)
}

// sum returns the Keccak-256 of what was written.
func (s *scratch) sum() [32]byte {
	s.hash.Reset()
	_, _ = s.hash.Write(s.buf) // a hash never fails
	_, _ = s.hash.Read(s.out[:])
	return s.out
}

// typed returns the digest of a struct hash in a domain.
func (s *scratch) typed(d Domain, structHash [32]byte) [32]byte {
	s.buf = append(s.buf[:0], 0x19, 0x01)
	s.word(d)
	s.word(structHash)
	return s.sum()
}

// parseAddress reads 0x and 40 hexadecimal digits of any case.
func parseAddress(s string) (a common.Address, ok bool) {
	if len(s) != 2+2*len(a) || s[:2] != "0x" {
		return a, false
	}
	for i := range a {
		high, ok := digit(s[2+2*i])
		low, ok2 := digit(s[3+2*i])
		if !ok || !ok2 {
			return common.Address{}, false
		}
		a[i] = high<<4 | low
	}
	return a, true
}

func digit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
