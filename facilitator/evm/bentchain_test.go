package evm

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// leaves lists the paths of all members of a JSON value that are no objects.
func leaves(v any, path []string) [][]string {
	object, ok := v.(map[string]any)
	if !ok {
		return [][]string{slices.Clone(path)}
	}
	var all [][]string
	for _, name := range slices.Sorted(maps.Keys(object)) {
		all = append(all, leaves(object[name], append(path, name))...)
	}
	return all
}

// bend replaces one member of a JSON text; with nothing it takes it out.
func bend(t *testing.T, raw []byte, path []string, with func(old any) (any, bool)) []byte {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	at := v
	for _, name := range path[:len(path)-1] {
		at = at[name].(map[string]any)
	}
	last := path[len(path)-1]
	if value, keep := with(at[last]); keep {
		at[last] = value
	} else {
		delete(at, last)
	}
	return must(json.Marshal(v))
}

// compact is a JSON text without spaces, members in order.
func compact(raw []byte) string {
	var v any
	_ = json.Unmarshal(raw, &v)
	b, _ := json.Marshal(v)
	return string(b)
}

// TestBentPayments bends every member of what the payer sends, one at a time, in
// every way of paying. What the payer did not sign so is never settled, and nothing
// is sent for it.
func TestBentPayments(t *testing.T) {
	bends := map[string]func(any) (any, bool){
		"left out": func(any) (any, bool) { return nil, false },
		"null":     func(any) (any, bool) { return nil, true },
		"a number": func(any) (any, bool) { return 5, true },
		"empty":    func(any) (any, bool) { return "", true },
		"a list":   func(any) (any, bool) { return []any{"x"}, true },
		"another last digit": func(old any) (any, bool) {
			s, ok := old.(string)
			if !ok || s == "" {
				return 6, true
			}
			last := byte('1')
			if s[len(s)-1] == '1' {
				last = '2'
			}
			return s[:len(s)-1] + string(last), true
		},
		"longer": func(old any) (any, bool) { s, _ := old.(string); return s + "00", true },
		"signed": func(old any) (any, bool) { s, _ := old.(string); return "+" + s, true },
		"2^256": func(any) (any, bool) {
			return "115792089237316195423570985008687907853269984665640564039457584007913129639936", true
		},
		"our own account": func(any) (any, bool) { return signerAddress, true },
	}
	c := startChain(t, withPermit2(t))
	f, _ := c.start("base-sepolia", budget("0.01/day"))
	exact, _ := c.permit(permitOrder{nonce: 1, before: 1e6, extensions: c.sponsor2612(10000, nil)})
	upto, _ := c.permit(permitOrder{nonce: 2, before: 1e6, upto: true, extensions: c.sponsor2612(10000, nil)})
	approval, _ := c.permit(permitOrder{nonce: 3, before: 1e6, asset: tether.Hex(), extensions: sponsorApproval(nil, nil)})
	for name, good := range map[string]facilitator.Request{
		"EIP-3009": c.sign(order{before: 1e6}), "EIP-3009, version 1": c.sign(order{version: 1, nonce: 1, before: 1e6}),
		"Permit2": exact, "upto": upto, "Permit2 with approval": approval,
	} {
		raw := good.Payment.Raw
		var whole map[string]any
		if err := json.Unmarshal(raw, &whole); err != nil {
			t.Fatal(err)
		}
		bent := 0
		for _, path := range leaves(whole, nil) {
			// What the client says it chose is for the gate to compare.
			if path[0] != "payload" && path[0] != "scheme" && path[0] != "network" {
				continue
			}
			for how, with := range bends {
				header := x402.HeaderPaymentSignature
				if good.Payment.Version == x402.V1 {
					header = x402.HeaderXPayment
				}
				p, err := x402.Decode(http.Header{header: {base64.StdEncoding.EncodeToString(bend(t, raw, path, with))}})
				if err != nil {
					continue // it comes no further than the gate
				}
				if p.Payload.Compact() == nil && string(p.Payload) == compact(good.Payment.Payload) {
					continue // it was like that
				}
				bent++
				r := good
				r.Payment = p
				where := name + ": " + strings.Join(path, ".") + ", " + how
				if v, err := f.Verify(during(t, 5*time.Minute), r); v.Valid || err != nil && v.Reason != "" {
					t.Errorf("%s: verify: %+v, %v", where, v, err)
				}
				if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome == facilitator.Settled || s.Outcome == facilitator.Unknown {
					t.Errorf("%s: settle: %+v", where, s)
				}
			}
		}
		if bent < 40 {
			t.Errorf("%s: only %d were bent", name, bent)
		}
	}
	if c.transactions() != 0 || c.balance(payee) != 0 || c.of(tether, payee) != 0 {
		t.Fatalf("%d transactions", c.transactions())
	}
	// All of them were good as they were.
	for name, r := range map[string]facilitator.Request{"Permit2": exact, "upto": upto, "Permit2 with approval": approval} {
		if name == "upto" {
			continue // its permit has the same number as the first one's
		}
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
