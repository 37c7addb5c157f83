package money

import (
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseMoney(t *testing.T) {
	nines := func(n int) string { return strings.Repeat("9", n) }
	for _, tc := range []struct {
		in, decimal, symbol string
		remedy              string // for errors: a part of the text
	}{
		{in: "$0.01", decimal: "0.01"},
		{in: "$1", decimal: "1"},
		{in: "$10", decimal: "10"},
		{in: "$1.50", decimal: "1.50"},
		{in: "$1000000", decimal: "1000000"},
		{in: "$0.000001", decimal: "0.000001"},
		{in: "$0.0000001", decimal: "0.0000001"},
		{in: "$0.123456789012345678", decimal: "0.123456789012345678"},
		{in: "$" + nines(78), decimal: nines(78)},
		{in: "0.02 eurc", decimal: "0.02", symbol: "eurc"},
		{in: "0.02 EURC", decimal: "0.02", symbol: "eurc"},
		{in: "1.5 USDC", decimal: "1.5", symbol: "usdc"},
		{in: "0.1 usdt0", decimal: "0.1", symbol: "usdt0"},
		{in: "7 USDC.e", decimal: "7", symbol: "usdc.e"},
		{in: "1 a-b_c", decimal: "1", symbol: "a-b_c"},

		{in: "", remedy: "write an amount"},
		{in: "$", remedy: "no number"},
		{in: "$ ", remedy: "spaces around"},
		{in: "$$1", remedy: "not a number"},
		{in: "1", remedy: "write $1 or 1 usdc"},
		{in: "0.01", remedy: "write $0.01 or 0.01 usdc"},
		{in: "abc", remedy: "not a number"},
		{in: "free", remedy: "not a number"},
		{in: "eurc", remedy: "not a number"},
		{in: "eurc 0.02", remedy: "not a number"},
		{in: "-1", remedy: "sign"},
		{in: "$-1", remedy: "sign"},
		{in: "-$1", remedy: "sign"},
		{in: "+1 usdc", remedy: "sign"},
		{in: "$+0.01", remedy: "sign"},
		{in: "1e-3", remedy: "exponent"},
		{in: "$1e3", remedy: "exponent"},
		{in: "$1E6", remedy: "exponent"},
		{in: "1,000", remedy: "comma"},
		{in: "$1,000.50", remedy: "comma"},
		{in: "0,01 eurc", remedy: "comma"},
		{in: "$.5", remedy: "0.5"},
		{in: ".5 usdc", remedy: "0.5"},
		{in: "$5.", remedy: "ends with the point"},
		{in: "$.", remedy: "begins with the point"},
		{in: "$1.2.3", remedy: "not a number"},
		{in: "$1..2", remedy: "not a number"},
		{in: "$0", remedy: "is zero; write `free`"},
		{in: "$0.00", remedy: "is zero"},
		{in: "0 usdc", remedy: "is zero"},
		{in: "$00.01", remedy: "zeros in front"},
		{in: "$007", remedy: "zeros in front"},
		{in: "$1" + nines(78), remedy: "78 digits"},
		{in: "$0." + nines(78), remedy: "78 digits"},
		{in: "$ 2.50", remedy: "without a space"},
		{in: "$2.50 ", remedy: "spaces around"},
		{in: " $2.50", remedy: "spaces around"},
		{in: "$2 .50", remedy: "without a space"},
		{in: "1 000 usdc", remedy: "one space"},
		{in: "1  usdc", remedy: "one space"},
		{in: "1 usdc ", remedy: "spaces around"},
		{in: "1\tusdc", remedy: "not a number"},
		{in: "1 usdc extra", remedy: "one space"},
		{in: "$1 usdc", remedy: "without a symbol"},
		{in: "1 ", remedy: "spaces around"},
		{in: "1usdc", remedy: "not a number"},
		{in: "1 $", remedy: "one space"},
		{in: "1 0x036CbD53842c5426634e7929541eC2318f3dCF7e", remedy: "symbol"},
		{in: "€1", remedy: "not a number"},
		{in: "$1 000", remedy: "without a space"},
		{in: "$1\u00a0000", remedy: "not a number"},
		{in: "$١", remedy: "not a number"},
		{in: "$½", remedy: "not a number"},
		{in: "$0x10", remedy: "not a number"},
		{in: "$1_000", remedy: "not a number"},
		{in: "$NaN", remedy: "not a number"},
		{in: "$Inf", remedy: "not a number"},
		{in: "50%", remedy: "not a number"},
		{in: "$1\n", remedy: "spaces around"},
		{in: "$1\x00", remedy: "not a number"},
		{in: "{env.PRICE}", remedy: "placeholder"},
		{in: "${env.PRICE}", remedy: "placeholder"},
	} {
		m, err := ParseMoney(tc.in)
		switch {
		case tc.remedy == "" && err != nil:
			t.Errorf("%q: %v", tc.in, err)
		case tc.remedy == "" && m != Money{tc.decimal, tc.symbol}:
			t.Errorf("%q: %+v", tc.in, m)
		case tc.remedy != "" && err == nil:
			t.Errorf("%q: %+v, want an error", tc.in, m)
		case tc.remedy != "" && !strings.Contains(err.Error(), tc.remedy):
			t.Errorf("%q: %q, want it to say %q", tc.in, err, tc.remedy)
		}
	}
}

func TestAtomic(t *testing.T) {
	const max256 = "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	for _, tc := range []struct {
		decimal  string
		decimals int
		want     string // empty: an error
	}{
		{"0.01", 6, "10000"},
		{"1", 6, "1000000"},
		{"1", 0, "1"},
		{"12", 0, "12"},
		{"0.000001", 6, "1"},
		{"0.0000010", 6, "1"}, // zeros at the end say nothing
		{"2.50", 6, "2500000"},
		{"2.50", 1, "25"},
		{"0.01", 18, "10000000000000000"},
		{"0.000000000000000001", 18, "1"},
		{"1000000000000000000000", 6, "1000000000000000000000000000"},
		{max256, 0, max256},
		{"0." + strings.Repeat("0", 76) + "1", 77, "1"},

		{"0.0000001", 6, ""}, // cut, it would be free
		{"0.123456789", 6, ""},
		{"1.5", 0, ""},
		{"0.01", 1, ""},
		{"115792089237316195423570985008687907853269984665640564039457584007913129639936", 0, ""},
		{max256, 1, ""},
		{"1", 77, "1" + strings.Repeat("0", 77)},
		{"2", 77, ""},
		{"1", 78, ""},
		{"1", -1, ""},
		{"", 6, ""},
		{"0", 6, ""},
		{"-1", 6, ""},
		{"1e3", 6, ""},
	} {
		got, err := Money{Decimal: tc.decimal}.Atomic(tc.decimals)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s with %d decimals: %q, %v, want %q", tc.decimal, tc.decimals, got, err, tc.want)
		}
	}
}

func TestFormatAtomic(t *testing.T) {
	for _, tc := range []struct {
		atomic   string
		decimals int
		want     string
	}{
		{"10000", 6, "0.01"},
		{"1", 6, "0.000001"},
		{"1000000", 6, "1"},
		{"1500000", 6, "1.5"},
		{"0", 6, "0"},
		{"000", 6, "0"},
		{"0010", 1, "1"},
		{"5", 0, "5"},
		{"10000000000000000", 18, "0.01"},
		// What is no amount comes back.
		{"", 6, ""},
		{"-5", 6, "-5"},
		{"abc", 6, "abc"},
		{"1.5", 6, "1.5"},
		{"5", -1, "5"},
		{"5", 78, "5"},
	} {
		if got := FormatAtomic(tc.atomic, tc.decimals); got != tc.want {
			t.Errorf("%s with %d decimals: %q, want %q", tc.atomic, tc.decimals, got, tc.want)
		}
	}
}

// TestOfficialAmounts compares us with the official server. We refuse where it
// rounds, and where the text could mean something else than it takes it for.
func TestOfficialAmounts(t *testing.T) {
	var vectors struct {
		ParseMoney []struct {
			Input                   json.RawMessage
			Amount, Symbol, Atomic6 string
			Error                   string
		}
		ExactEVMParsePrice []struct {
			Price   json.RawMessage
			Network string
			Result  struct {
				Amount, Asset, Error string
				Extra                map[string]string
			}
		} `json:"exactEvmParsePrice"`
	}
	readJSON(t, "testdata/amounts.json", &vectors)
	refused := map[string]string{
		"0.01":         "a bare number: dollars, or a forgotten symbol?",
		"$ 2.50":       "a space within the amount",
		"0.0000001":    "a bare number, and the official result is 0: free",
		"$0.123456789": "finer than the asset; the official result is cut",
	}
	for _, v := range vectors.ParseMoney {
		var in string
		if json.Unmarshal(v.Input, &in) != nil {
			continue // a JSON number: an operator writes text
		}
		m, err := ParseMoney(in)
		atomic := ""
		if err == nil {
			atomic, err = m.Atomic(6)
		}
		_, weRefuse := refused[in]
		switch {
		case v.Error != "" || weRefuse:
			if err == nil {
				t.Errorf("%q: %+v, want an error", in, m)
			}
			delete(refused, in)
		case err != nil:
			t.Errorf("%q: %v", in, err)
		case m.Decimal != v.Amount || m.Symbol != strings.ToLower(v.Symbol) || atomic != v.Atomic6:
			t.Errorf("%q: %+v, %s", in, m, atomic)
		}
	}
	if len(refused) > 0 {
		t.Errorf("not in the vectors: %v", refused)
	}
	for _, v := range vectors.ExactEVMParsePrice {
		var in string
		if json.Unmarshal(v.Price, &in) != nil {
			continue // an asset and an amount: nothing to parse
		}
		m, err := ParseMoney(in)
		if err != nil {
			t.Fatal(err)
		}
		asset, found := dollarAsset(v.Network)
		if m.Symbol != "" {
			asset, found = FindAsset(v.Network, m.Symbol)
		}
		if v.Result.Error != "" {
			if found {
				t.Errorf("%s on %s: %+v, want none", in, v.Network, asset)
			}
			continue
		}
		atomic, err := m.Atomic(asset.Decimals)
		extra := map[string]string{}
		if asset.Name != "" {
			extra["name"], extra["version"] = asset.Name, asset.Version
		}
		if asset.Transfer == TransferPermit2 {
			extra["assetTransferMethod"] = asset.Transfer
		}
		if err != nil || atomic != v.Result.Amount || asset.Address != v.Result.Asset || !equalMaps(extra, v.Result.Extra) {
			t.Errorf("%s on %s: %s of %+v, %v, want %+v", in, v.Network, atomic, asset, err, v.Result)
		}
	}
}

// dollarAsset is what a plain dollar price means to the official server.
func dollarAsset(network string) (Asset, bool) {
	for _, symbol := range []string{"usdc", "usdt0", "megausd"} {
		if a, ok := FindAsset(network, symbol); ok && a.PegUSD {
			return a, true
		}
	}
	return Asset{}, false
}

func equalMaps(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// TestMoneyRoundTrip: no digit is lost between the Caddyfile and the chain.
func TestMoneyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		decimals := rapid.IntRange(0, maxDecimals).Draw(t, "decimals")
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "amount"))
		if n.Sign() == 0 {
			n.SetInt64(1)
		}
		written := FormatAtomic(n.String(), decimals)
		m, err := ParseMoney("$" + written)
		if err != nil {
			t.Fatal(err)
		}
		atomic, err := m.Atomic(decimals)
		if err != nil || atomic != n.String() {
			t.Fatalf("%s with %d decimals is written %s and read %s, %v", n, decimals, written, atomic, err)
		}
		again, err := ParseMoney(m.String())
		if err != nil || again != m {
			t.Fatalf("%s is read %+v, %v", m, again, err)
		}
	})
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"$0.01", "0.02 eurc", "$", "-1", "1e-3", "1,000", "$.5", "$0", "{env.X}", "1 USDC.e", "$0.0000001"} {
		f.Add(s, 6)
	}
	f.Fuzz(func(t *testing.T, s string, decimals int) {
		m, err := ParseMoney(s)
		if err != nil {
			if m != (Money{}) {
				t.Fatalf("%q: %+v with an error", s, m)
			}
			return
		}
		if again, err := ParseMoney(m.String()); err != nil || again != m {
			t.Fatalf("%q is %+v, which is read %+v, %v", s, m, again, err)
		}
		atomic, err := m.Atomic(decimals)
		if err != nil {
			return
		}
		n, ok := new(big.Int).SetString(atomic, 10)
		if !ok || n.Sign() <= 0 || n.Cmp(maxAtomic) > 0 || n.String() != atomic {
			t.Fatalf("%q is %q atomic units", s, atomic)
		}
		// The exact value, by another way.
		want, _ := new(big.Rat).SetString(m.Decimal)
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
		if want.Mul(want, new(big.Rat).SetInt(scale)).Cmp(new(big.Rat).SetInt(n)) != 0 {
			t.Fatalf("%q with %d decimals is %s, want %s", s, decimals, atomic, want)
		}
	})
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}
