package x402

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxSolanaTransaction is the network's own limit, in bytes.
const maxSolanaTransaction = 1232

// readSolana reads {transaction} of exact on Solana: the base64 of a serialised
// transaction. The key is the hash of the message that the payer signed; the
// signatures before it are not part of it, because the fee payer's slot is
// empty now and filled later.
func (a *Authorization) readSolana(payload jsontext.Value, cluster string) *Error {
	var m [1]jsontext.Value
	if _, err := readObject(payload, []string{"transaction"}, m[:]); err != nil {
		return &Error{Code: CodePaymentMalformed, Err: fmt.Errorf("payload: %w", err)}
	}
	s, ok := text(m[0])
	if !ok || s == "" {
		return refuse(CodePaymentMalformed, "payload.transaction: not a string with content")
	}
	// Solana's libraries know the standard alphabet only.
	if strings.ContainsAny(s, "-_") {
		return refuse(CodeSolanaTransaction, "payload.transaction: not standard base64")
	}
	tx, err := decodeBase64(s)
	if err != nil {
		return refuse(CodeSolanaTransaction, "payload.transaction: not standard base64")
	}
	message, payer, ok := solanaMessage(tx)
	if !ok {
		return refuse(CodeSolanaTransaction, "payload.transaction: not one legacy or version 0 transaction")
	}
	hash := sha256.Sum256(message)
	a.Kind = KindSolana
	a.Transaction = tx
	if payer != nil {
		a.Payer = base58(payer)
		a.signed = ed25519.Verify(payer, message, tx[1+64:1+2*64])
	}
	a.Key = KindSolana + ":" + cluster + ":" + hex.EncodeToString(hash[:])
	return nil
}

// PayerSigned says whether the payer of a Solana transaction has signed its message.
func (a Authorization) PayerSigned() bool { return a.signed }

// solanaMessage returns the message within a transaction, and the account that signs it
// beside the fee payer, which is the first; nil unless these two are all. A token moves
// only if its owner signs, and the fee payer is the facilitator. The transaction is
// walked to its last byte and every length must have its shortest form: a
// reader that forgives trailing bytes or long lengths would otherwise settle
// one message under many hashes.
func solanaMessage(tx []byte) (message, payer []byte, ok bool) {
	if len(tx) > maxSolanaTransaction {
		return nil, nil, false
	}
	w := walk{b: tx}
	signatures := w.length()
	w.skip(64 * signatures)
	message = w.b
	version0 := len(message) > 0 && message[0]&0x80 != 0
	if version0 && w.byte() != 0x80 {
		return nil, nil, false
	}
	// The header: how many sign, and how many accounts are read-only.
	if required := w.byte(); required == 0 || int(required) != signatures {
		return nil, nil, false
	}
	w.skip(2)
	n := w.length() // accounts
	if n >= 2 && signatures == 2 && len(w.b) >= 64 {
		payer = w.b[32:64]
	}
	w.skip(32 * n)
	w.skip(32)                                  // recent block hash
	for n := w.length(); n > 0 && !w.bad; n-- { // instructions
		w.skip(1)
		w.skip(w.length()) // accounts
		w.skip(w.length()) // data
	}
	if version0 {
		for n := w.length(); n > 0 && !w.bad; n-- { // address lookup tables
			w.skip(32)
			w.skip(w.length()) // writable
			w.skip(w.length()) // read-only
		}
	}
	return message, payer, !w.bad && len(w.b) == 0
}

// base58 spells an account as Solana does: in Bitcoin's digits, a leading 1 for each
// leading zero byte.
func base58(b []byte) string {
	const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	var s []byte
	n, base, digit := new(big.Int).SetBytes(b), big.NewInt(58), new(big.Int)
	for n.Sign() > 0 {
		n.DivMod(n, base, digit)
		s = append(s, digits[digit.Int64()])
	}
	for _, zero := range b {
		if zero != 0 {
			break
		}
		s = append(s, digits[0])
	}
	slices.Reverse(s)
	return string(s)
}

// walk takes bytes off a slice. After the first failure it is bad, and all it
// returns is zero.
type walk struct {
	b   []byte
	bad bool
}

func (w *walk) skip(n int) {
	if w.bad || n > len(w.b) {
		w.b, w.bad = nil, true
		return
	}
	w.b = w.b[n:]
}

func (w *walk) byte() byte {
	if w.bad || len(w.b) == 0 {
		w.bad = true
		return 0
	}
	c := w.b[0]
	w.b = w.b[1:]
	return c
}

// length reads a compact-u16: seven bits a byte, low ones first, at most three.
func (w *walk) length() int {
	n := 0
	for i := range 3 {
		c := w.byte()
		n |= int(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			if c == 0 && i > 0 || n > 0xffff {
				w.bad = true // not the shortest form, or too much
				return 0
			}
			return n
		}
	}
	w.bad = true
	return 0
}
