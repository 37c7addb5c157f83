package soak

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// spelling is a way to write a payment down. What is signed is the same in all.
type spelling struct {
	version                 int
	turned                  bool // members in reverse order
	before, colon, between  string
	hex                     func(string) string
	base                    *base64.Encoding
	unknownMembers, escapes bool
}

// spellings are many.
func spellings() []spelling {
	var all []spelling
	upper := func(s string) string { return "0x" + strings.ToUpper(s[2:]) }
	bases := []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding}
	spaces := [][3]string{{"", ":", ","}, {" ", ": ", ", "}, {"\n\t", " :\t", " ,\r\n"}}
	hexes := []func(string) string{strings.ToLower, upper, func(s string) string { return s }}
	for i, base := range bases {
		for j, space := range spaces {
			for k, hex := range hexes {
				for _, version := range []int{x402.V1, x402.V2} {
					all = append(all, spelling{
						version: version, before: space[0], colon: space[1], between: space[2], base: base, hex: hex,
						turned: (i+j+k)%2 == 0, unknownMembers: i > 0, escapes: (j+k)%2 == 1,
					})
				}
			}
		}
	}
	return all
}

// write writes the payment.
func (s spelling) write(p signed) header {
	p.version = s.version
	p.authorization = maps.Clone(p.authorization)
	for _, name := range []string{"from", "to", "nonce"} {
		p.authorization[name] = s.hex(p.authorization[name])
	}
	p.signature = s.hex(p.signature)
	object := p.object()
	if s.unknownMembers {
		object["x"] = []any{1, nil, "????~~~~"} // where the two alphabets of base64 differ
	}
	var b strings.Builder
	b.WriteString(s.before)
	s.value(&b, object)
	b.WriteString(s.before)
	return header{p.name(), s.base.EncodeToString([]byte(b.String()))}
}

func (s spelling) value(b *strings.Builder, v any) {
	var members map[string]any
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &members)
	}
	if err != nil || members == nil { // no object
		b.Write(raw)
		return
	}
	names := slices.Sorted(maps.Keys(members))
	if s.turned {
		slices.Reverse(names)
	}
	b.WriteString("{" + s.before)
	for i, name := range names {
		if i > 0 {
			b.WriteString(s.between)
		}
		if s.escapes {
			fmt.Fprintf(b, `"\u%04x%s"`, name[0], name[1:])
		} else {
			fmt.Fprintf(b, "%q", name)
		}
		b.WriteString(s.colon)
		s.value(b, members[name])
	}
	b.WriteString(s.before + "}")
}

// checkSpellings makes sure that all are different and that all are read, or a
// test with them would prove little.
func checkSpellings(t testing.TB, p signed, r x402.Requirement) []header {
	t.Helper()
	different := make(map[header]bool)
	var all []header
	for _, s := range spellings() {
		h := s.write(p)
		different[h] = true
		all = append(all, h)
		got, err := x402.Decode(http.Header{h.name: {h.value}})
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		if a, err := got.Authorization(r); err != nil || a.Nonce != p.nonce {
			t.Fatalf("%+v: %v", s, err)
		}
	}
	if len(different) < 40 {
		t.Fatalf("only %d spellings", len(different))
	}
	return all
}
