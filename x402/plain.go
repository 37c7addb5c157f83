package x402

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"
)

// Payers' libraries write the same numbers in several ways: as JSON numbers, as
// hexadecimal, with a fraction of nothing. What is certain is taken, and written anew in the
// one way that all facilitators read: official ones take a few of these spellings, those in Go
// none, and those in JavaScript round a JSON number above 2^53. Nothing can come of a
// wrong reading but a signature that is nobody's, since the numbers themselves are signed.

// bom is how some libraries begin every text.
var bom = []byte("\ufeff")

// wholeNumber returns the digits of a JSON number that is whole as it is written: 12 and
// 12.0, but not 1.2e1, which some write for what they have rounded.
func wholeNumber(v jsontext.Value) (digits string, ok bool) {
	if v.Kind() != jsontext.KindNumber {
		return "", false
	}
	digits, fraction, _ := strings.Cut(string(v), ".")
	return digits, strings.Trim(fraction, "0") == "" && strings.Trim(digits, "0123456789") == ""
}

// plainUint returns the decimal digits of what v certainly means, if they are not what it
// has: a JSON number, or a string with a hexadecimal one. What is left is judged by whoever
// reads it.
func plainUint(v jsontext.Value) (digits string, ok bool) {
	if digits, ok = wholeNumber(v); ok {
		_, ok = parseUint(digits)
		return digits, ok
	}
	s, _ := text(v)
	hex, ok := strings.CutPrefix(s, "0x")
	if !ok || hex == "" || len(hex) > 64 {
		return "", false
	}
	hex = strings.TrimLeft(hex, "0")
	if hex == "" {
		return "0", true
	}
	var n uint256.Int
	if n.SetFromHex("0x"+hex) != nil {
		return "", false
	}
	return n.Dec(), true
}

// plainNames are where an EVM payload has numbers, with what they are members of.
var plainNames = struct{ payload, eip3009, permit2, permitted, witness []string }{
	payload:   []string{"authorization", "permit2Authorization"},
	eip3009:   []string{"value", "validAfter", "validBefore"},
	permit2:   []string{"nonce", "deadline", "permitted", "witness"},
	permitted: []string{"amount"},
	witness:   []string{"validAfter"},
}

// plainPayload writes the numbers of an EVM payload plainly; nil if they are so. It has
// found no fault with what it leaves as it is.
func plainPayload(payload jsontext.Value) jsontext.Value {
	return rewrite(payload, plainNames.payload, func(i int, v jsontext.Value) jsontext.Value {
		if i == 0 {
			return plainMembers(v, plainNames.eip3009)
		}
		return rewrite(v, plainNames.permit2, func(i int, v jsontext.Value) jsontext.Value {
			switch i {
			case 2:
				return plainMembers(v, plainNames.permitted)
			case 3:
				return plainMembers(v, plainNames.witness)
			}
			return plainMember(i, v)
		})
	})
}

func plainMembers(object jsontext.Value, names []string) jsontext.Value {
	return rewrite(object, names, plainMember)
}

func plainMember(_ int, v jsontext.Value) jsontext.Value {
	digits, ok := plainUint(v)
	if !ok {
		return nil
	}
	return jsontext.Value(strconv.Quote(digits))
}

// rewrite gives members of an object, which names lists, another value; those for which with
// says nil stay, and so does all else, to the letter. It returns nil if nothing changes, and
// for what is no object or has a member twice.
func rewrite(object jsontext.Value, names []string, with func(i int, v jsontext.Value) jsontext.Value) jsontext.Value {
	var values [4]jsontext.Value
	if _, err := readObject(object, names, values[:len(names)]); err != nil {
		return nil
	}
	changes := false
	for i, v := range values[:len(names)] {
		if v != nil {
			values[i] = with(i, v)
			changes = changes || values[i] != nil
		}
	}
	if !changes {
		return nil
	}
	var rewritten jsontext.Value
	copied := 0 // of the object
	d := jsontext.NewDecoder(bytes.NewBuffer(object))
	_, err := d.ReadToken()
	for err == nil && d.PeekKind() == jsontext.KindString {
		var name, old jsontext.Value
		if name, err = d.ReadValue(); err != nil {
			break
		}
		i, _ := indexName(names, name)
		if old, err = d.ReadValue(); err != nil || i < 0 || values[i] == nil {
			continue
		}
		end := int(d.InputOffset())
		rewritten = append(append(rewritten, object[copied:end-len(old)]...), values[i]...)
		copied = end
	}
	if err != nil {
		return nil // unreachable: it was read above
	}
	return append(rewritten, object[copied:]...)
}

// plain writes the numbers of what is signed as everybody reads them, and the version, which
// came in this spelling.
func (p *Payment) plain(version jsontext.Value) {
	var payload jsontext.Value
	if strings.HasPrefix(p.Network, "eip155:") {
		payload = plainPayload(p.Payload)
	}
	if payload == nil && len(version) == 1 {
		return // as nearly always
	}
	raw := rewrite(p.Raw, []string{"x402Version", "payload"}, func(i int, _ jsontext.Value) jsontext.Value {
		if i == 0 {
			return strconv.AppendInt(nil, int64(p.Version), 10)
		}
		return payload
	})
	if raw == nil {
		return // unreachable: it was read before
	}
	p.Raw = raw
	if payload != nil {
		p.Payload = payload
	}
}
