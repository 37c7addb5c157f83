package client

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseLimit(t *testing.T) {
	for in, want := range map[string]string{
		"0.10": "$0.10", "$0.10": "$0.10", "0": "$0", "$0.00": "$0.00", "100": "$100",
		"0.02 eurc": "0.02 eurc", "0 usdc": "0 usdc",
		"10000 eip155:84532/" + usdc: "10000 eip155:84532/" + usdc,
		"0 base/" + usdc:             "0 base/" + usdc,
	} {
		if l, err := ParseLimit(in); err != nil || l.String() != want {
			t.Errorf("%q: %q, %v", in, l, err)
		}
	}
	for _, in := range []string{
		"", " ", "$", "-1", "+1", "1,5", "1e3", ".5", "5.", "00.1", "0.", "0x10", "one", "∞", "NaN",
		"$1 usdc", "1 ", "1  usdc", "1 usdc eurc", "1 $",
		"1.5 base/" + usdc, "1 nowhere/" + usdc, "1 base/usdc", "1 /" + usdc, "1 base/" + usdc[1:],
		strings.Repeat("9", 100),
	} {
		if l, err := ParseLimit(in); err == nil {
			t.Errorf("%q is %q", in, l)
		}
	}
	if (Limit{}).speaksOf(&Offer{}) {
		t.Error("the zero limit speaks of something")
	}
}

// TestAtMost compares with fractions.
func TestAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := rapid.StringMatching(`[1-9][0-9]{0,40}`).Draw(t, "units")
		decimals := rapid.IntRange(0, 30).Draw(t, "decimals")
		limit := rapid.StringMatching(`(0|[1-9][0-9]{0,20})(\.[0-9]{1,40})?`).Draw(t, "limit")
		n, _ := new(big.Int).SetString(units, 10)
		price := new(big.Rat).SetFrac(n, power10(decimals))
		most, _ := new(big.Rat).SetString(limit)
		if got, want := atMost(n, decimals, limit), price.Cmp(most) <= 0; got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
