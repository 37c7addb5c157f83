package x402

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Match returns which requirement of the offer the payment chose, as an index
// into offer. The error is a *Error with CodeNoMatchingRequirements.
//
// Version 2 follows the official servers: accepted must repeat our requirement,
// member by member, strings byte by byte, numbers by value and no member of its
// own; only extra may have more than ours, at any depth of its objects. Members
// of extra that change with every challenge (Solana's block hash) are not
// compared. Other than there, an extra that is absent, null or {} is the same
// thing, because Go and Rust clients leave out an empty object, and a null
// member counts as absent.
//
// Version 1 names only scheme and network. Of several that have them we take
// the one whose payTo and amount were signed, else the first.
//
// Whoever asks a facilitator sends it our requirement, never the payer's copy.
func Match(p *Payment, offer []Requirement) (int, error) {
	var i int
	if p.Version == V1 {
		i = matchV1(p, offer)
	} else {
		i = matchV2(p, offer)
	}
	if i < 0 {
		return -1, refuse(CodeNoMatchingRequirements, "the payment chose nothing of this offer")
	}
	return i, nil
}

func matchV2(p *Payment, offer []Requirement) int {
	var a [7]jsontext.Value
	others, err := readObject(p.Accepted, namesAccepted, a[:])
	if err != nil || others != 0 {
		return -1
	}
	for i := range offer {
		r := &offer[i]
		if is(a[0], r.Scheme) && is(a[1], r.Network) && is(a[2], r.Amount) && is(a[3], r.Asset) && is(a[4], r.PayTo) &&
			isNumber(a[5], r.MaxTimeoutSeconds) && extraMatches(r, a[6]) {
			return i
		}
	}
	return -1
}

func matchV1(p *Payment, offer []Requirement) int {
	first := -1
	for i, r := range offer {
		if r.Scheme != p.Scheme || r.Network != p.Network || !inV1(r) {
			continue
		}
		if a, err := p.Authorization(r); err == nil && (a.Kind != KindEIP3009 || a.paysExactly(r) && sameAddress(a.To, r.PayTo)) {
			return i
		}
		if first < 0 {
			first = i
		}
	}
	return first
}

// inV1 reports whether version 1 can say how r is paid: it knows nothing but
// exact, and on EVM chains nothing but EIP-3009.
func inV1(r Requirement) bool {
	if r.Scheme != SchemeExact {
		return false
	}
	if !strings.HasPrefix(r.Network, "eip155:") {
		return true
	}
	method, err := transferMethod(r)
	return err == nil && method == KindEIP3009
}

// is reports whether v is the JSON string s.
func is(v jsontext.Value, s string) bool {
	if len(v) == len(s)+2 && v[0] == '"' && string(v[1:len(v)-1]) == s {
		// Equal bytes are equal strings unless they hold an escape.
		return strings.IndexByte(s, '\\') < 0
	}
	t, ok := text(v)
	return ok && t == s
}

// isNumber reports whether v is a JSON number of value n.
func isNumber(v jsontext.Value, n int) bool {
	if v.Kind() != jsontext.KindNumber {
		return false
	}
	if i, err := strconv.Atoi(string(v)); err == nil {
		return i == n
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return err == nil && f == float64(n) //nolint:forbidigo // JSON numbers of an object are no money
}

// dynamicExtra are members of a Solana requirement's extra that a server may
// make anew for each challenge, by scheme.
var dynamicExtra = map[string][]string{
	SchemeExact: {"recentBlockhash", "lastValidBlockHeight"},
	SchemeUpto:  {"recentBlockhash", "lastValidBlockHeight", "recentSlot"},
}

// extraMatches reports whether the payer's extra contains ours.
func extraMatches(r *Requirement, theirs jsontext.Value) bool {
	if len(r.Extra) == 0 || bytes.Equal(r.Extra, theirs) {
		return theirs == nil || isObject(theirs)
	}
	var ours map[string]any
	if json.Unmarshal(r.Extra, &ours) != nil {
		return false
	}
	if strings.HasPrefix(r.Network, "solana:") {
		for _, name := range dynamicExtra[r.Scheme] {
			delete(ours, name)
		}
	}
	if theirs == nil {
		return len(ours) == 0
	}
	return holds(ours, theirs)
}

// holds reports whether JSON has every member of want, at any depth. Arrays and
// scalars must be equal. What is wanted comes from json.Unmarshal into any; the rest
// of the JSON, which may be long, is skipped. Somebody has checked it before.
func holds(want any, theirs jsontext.Value) bool {
	object, ok := want.(map[string]any)
	if !ok {
		if _, ok := want.(string); ok != (theirs.Kind() == jsontext.KindString) {
			return false
		}
		if _, ok := want.([]any); ok != (theirs.Kind() == jsontext.KindBeginArray) {
			return false
		}
		var got any
		return theirs.Kind() != jsontext.KindBeginObject && json.Unmarshal(theirs, &got) == nil && reflect.DeepEqual(want, got)
	}
	if !isObject(theirs) {
		return false
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(theirs), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return false
	}
	found := 0
	for found < len(object) && d.PeekKind() == jsontext.KindString {
		name, err := d.ReadToken()
		if err != nil {
			return false
		}
		wanted, ok := object[name.String()]
		if !ok {
			if d.SkipValue() != nil {
				return false
			}
			continue
		}
		value, err := d.ReadValue()
		if err != nil || !holds(wanted, value) {
			return false
		}
		found++
	}
	return found == len(object)
}

// contains is holds for what json.Unmarshal made of both.
func contains(want, got any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(want, got)
	}
	g, ok := got.(map[string]any)
	if !ok {
		return false
	}
	for name, v := range w {
		if other, ok := g[name]; !ok || !contains(v, other) {
			return false
		}
	}
	return true
}
