package x402

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

const solanaMainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

// solanaTx builds a transaction like the official client's: two signers, the
// fee payer first and unsigned, three instructions.
func solanaTx(version0 bool) (signatures, message []byte) {
	signatures = append([]byte{2}, make([]byte, 64)...)
	signatures = append(signatures, bytes.Repeat([]byte{7}, 64)...)
	if version0 {
		message = append(message, 0x80)
	}
	message = append(message, 2, 1, 3)
	message = append(message, 6)
	message = append(message, bytes.Repeat([]byte{1}, 6*32)...)
	message = append(message, bytes.Repeat([]byte{9}, 32)...)
	message = append(message, 3)
	message = append(message, 4, 0, 5, 2, 0x40, 0x0d, 3, 0)
	message = append(message, 4, 0, 9, 3, 1, 0, 0, 0, 0, 0, 0, 0)
	message = append(message, 5, 4, 2, 3, 1, 0, 0x80, 0x01) // 128 bytes of data
	message = append(message, bytes.Repeat([]byte{5}, 128)...)
	if version0 {
		message = append(message, 1)
		message = append(message, bytes.Repeat([]byte{3}, 32)...)
		message = append(message, 1, 0, 2, 4, 5)
	}
	return signatures, message
}

func solanaPayment(tx string) (*Payment, Requirement) {
	p := &Payment{Version: V2, Scheme: "exact", Network: solanaMainnet, Payload: jsontext.Value(`{"transaction":"` + tx + `"}`)}
	return p, Requirement{Scheme: "exact", Network: solanaMainnet}
}

func TestSolanaKey(t *testing.T) {
	seen := make(map[string]bool)
	for _, version0 := range []bool{false, true} {
		signatures, message := solanaTx(version0)
		// The fee payer's signature, later filled in, is not part of the key.
		filled := slices.Clone(signatures)
		copy(filled[1:], bytes.Repeat([]byte{8}, 64))
		var key string
		for _, s := range [][]byte{signatures, filled} {
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
				p, r := solanaPayment(enc.EncodeToString(slices.Concat(s, message)))
				a, err := p.Authorization(r)
				if err != nil {
					t.Fatal(err)
				}
				if key == "" {
					key = a.Key
				}
				if a.Key != key || a.Kind != KindSolana || len(a.Transaction) != len(s)+len(message) {
					t.Errorf("%+v", a)
				}
				if err := a.Check(r, vectorTime, minLife, maxLife); err != nil {
					t.Error(err)
				}
			}
		}
		if !strings.HasPrefix(key, solanaMainnet+":") || len(key) != len(solanaMainnet)+1+64 || seen[key] {
			t.Errorf("key %s", key)
		}
		seen[key] = true
	}
}

// The payer is who signs beside the fee payer, and whether he has is known.
func TestSolanaPayer(t *testing.T) {
	for _, version0 := range []bool{false, true} {
		_, message := solanaTx(version0)
		owner := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, ed25519.SeedSize))
		at := bytes.Index(message, bytes.Repeat([]byte{1}, 6*32)) + 32
		copy(message[at:], owner.Public().(ed25519.PublicKey))
		read := func(tx []byte) Authorization {
			p, r := solanaPayment(base64.StdEncoding.EncodeToString(tx))
			a, err := p.Authorization(r)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		signature := ed25519.Sign(owner, message)
		a := read(slices.Concat([]byte{2}, make([]byte, 64), signature, message))
		if a.Payer != "EdmxWPmx2WH6WgFfTdu9xfkYf3k1g5wD1zccTVySEEh1" || !a.PayerSigned() {
			t.Errorf("%q signed %v", a.Payer, a.PayerSigned())
		}
		signature[9]++
		if b := read(slices.Concat([]byte{2}, make([]byte, 64), signature, message)); b.Payer != a.Payer || b.PayerSigned() {
			t.Errorf("forged: %q signed %v", b.Payer, b.PayerSigned())
		}
		// One signs, or three do: nobody can say who pays.
		for _, n := range []byte{1, 3} {
			other := slices.Clone(message)
			other[len(message)-len(bytes.TrimPrefix(message, []byte{0x80}))] = n
			if b := read(slices.Concat([]byte{n}, make([]byte, 64*int(n)), other)); b.Payer != "" || b.PayerSigned() {
				t.Errorf("%d signers: %q", n, b.Payer)
			}
		}
	}
	for account, want := range map[string]string{
		string(make([]byte, 32)):                strings.Repeat("1", 32),
		"\x00\x00" + strings.Repeat("\xff", 30): "11" + base58([]byte(strings.Repeat("\xff", 30))),
	} {
		if got := base58([]byte(account)); got != want {
			t.Errorf("%x: %s, want %s", account, got, want)
		}
	}
}

// TestSolanaDisguises: bytes that a lenient reader takes for the same
// transaction are refused, since they would have another key.
func TestSolanaDisguises(t *testing.T) {
	for _, version0 := range []bool{false, true} {
		signatures, message := solanaTx(version0)
		tx := slices.Concat(signatures, message)
		head := len(signatures)
		if version0 {
			head++
		}
		variants := map[string][]byte{
			"empty":                  {},
			"trailing byte":          append(slices.Clone(tx), 0),
			"cut by one":             tx[:len(tx)-1],
			"signatures only":        signatures,
			"message only":           message,
			"long count, 2 bytes":    slices.Concat([]byte{0x82, 0}, tx[1:]),
			"long count, 3 bytes":    slices.Concat([]byte{0x82, 0x80, 0}, tx[1:]),
			"count without end":      slices.Concat([]byte{0x82, 0x80, 0x80, 0}, tx[1:]),
			"count above 16 bits":    slices.Concat([]byte{0xff, 0xff, 0x7f}, tx[1:]),
			"one signature too few":  slices.Concat([]byte{1}, signatures[1:65], message),
			"one signature too many": slices.Concat([]byte{3}, signatures[1:], make([]byte, 64), message),
			"no signature":           slices.Concat([]byte{0}, message),
			"long account count":     slices.Concat(tx[:head+3], []byte{0x86, 0}, tx[head+4:]),
			"too large":              append(slices.Clone(tx), make([]byte, maxSolanaTransaction)...),
			"65535 instructions":     slices.Concat(tx[:head+4+7*32], []byte{0xff, 0xff, 3}, tx[head+4+7*32+1:]),
		}
		if version0 {
			variants["version 1"] = slices.Concat(signatures, []byte{0x81}, message[1:])
			variants["version 127"] = slices.Concat(signatures, []byte{0xff}, message[1:])
			variants["no lookup tables"] = slices.Concat(signatures, message[:len(message)-38])
		}
		for name, v := range variants {
			p, r := solanaPayment(base64.StdEncoding.EncodeToString(v))
			_, err := p.Authorization(r)
			if c := code(t, err); c != CodeSolanaTransaction && (name != "empty" || c != CodePaymentMalformed) {
				t.Errorf("%s, version 0 %v: %v", name, version0, err)
			}
		}
		for i := range tx {
			if _, _, ok := solanaMessage(tx[:i]); ok {
				t.Errorf("cut at %d passes", i)
			}
		}
		// Spellings of the base64 that Solana's libraries do not know.
		copy(tx[1:], bytes.Repeat([]byte{0xff}, 64))
		std := base64.StdEncoding.EncodeToString(tx)
		if p, r := solanaPayment(std); !strings.Contains(std, "/") {
			t.Error("sample does not show the alphabet")
		} else if _, err := p.Authorization(r); err != nil {
			t.Error(err)
		}
		for _, s := range []string{base64.URLEncoding.EncodeToString(tx), std[:8] + `\n` + std[8:], " " + std} {
			p, r := solanaPayment(s)
			if _, err := p.Authorization(r); code(t, err) != CodeSolanaTransaction {
				t.Errorf("%.20s: %v", s, err)
			}
		}
	}
	for _, payload := range []string{`{}`, `{"transaction":null}`, `{"transaction":1}`, `{"transaction":"AA","transaction":"AA"}`, `{"transaction":"AA","Transaction":"AA"}`} {
		p, r := solanaPayment("")
		p.Payload = jsontext.Value(payload)
		if _, err := p.Authorization(r); code(t, err) != CodePaymentMalformed {
			t.Errorf("%s: %v", payload, err)
		}
	}
}
