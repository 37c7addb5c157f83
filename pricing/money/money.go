// Package money holds exact amounts, the tables of assets and networks, and their
// addresses.
//
// Amounts are decimal strings at the edges and big integers inside. There is no
// floating point number in this package, and nothing is ever rounded: what
// cannot be said exactly is an error.
package money

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// maxDigits is how many digits an amount may have: 2^256-1, the largest amount
// that a token can carry, has 78.
const maxDigits = 78

// maxDecimals is the largest number of decimals a token may have: with more,
// one whole token would not fit into 256 bits.
const maxDecimals = 77

// maxSymbol is how long the symbol of a token may be.
const maxSymbol = 32

// maxAtomic is 2^256-1.
var maxAtomic = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))

// Money is an amount as the operator wrote it: `$0.01` or `0.02 eurc`.
type Money struct {
	// Decimal is the number, for example "0.01". It is never zero.
	Decimal string
	// Symbol is the asset in lower case, for example "eurc". Empty means US
	// dollars: any asset that is pegged to the dollar.
	Symbol string
}

// ParseMoney reads `$0.01` or `0.02 eurc`. It refuses everything that people
// read in two ways: a bare number (dollars, or a symbol that was forgotten?),
// a comma (thousands, or decimals?), signs, exponents and a missing digit on
// either side of the point.
func ParseMoney(s string) (Money, error) {
	bad := func(why string) (Money, error) {
		return Money{}, fmt.Errorf("amount %s: %s", quote(s), why)
	}
	if s == "" {
		return bad("is empty; write an amount such as $0.01 or 0.02 eurc")
	}
	if strings.TrimSpace(s) != s {
		return bad("has spaces around it; leave them out")
	}
	if strings.ContainsAny(s, "{}") {
		return bad("holds a placeholder that was not resolved; write an amount such as $0.01")
	}
	if rest, dollars := strings.CutPrefix(s, "$"); dollars {
		if strings.ContainsAny(rest, " \t") {
			return bad("write dollars without a space and without a symbol, such as $0.01, or another asset such as 0.02 eurc")
		}
		decimal, err := ParseDecimal(rest)
		if err != nil {
			return bad(err.Error())
		}
		return Money{Decimal: decimal}, nil
	}
	number, symbol, found := strings.Cut(s, " ")
	if !found {
		if _, err := ParseDecimal(number); err != nil {
			return bad(err.Error())
		}
		return bad("does not say of what; write $" + number + " or " + number + " usdc")
	}
	decimal, err := ParseDecimal(number)
	if err != nil {
		return bad(err.Error())
	}
	if err := checkSymbol(symbol); err != nil {
		return bad(err.Error())
	}
	return Money{Decimal: decimal, Symbol: strings.ToLower(symbol)}, nil
}

// ParseDecimal reads an exact decimal above zero, such as "0.01", and returns
// it unchanged.
func ParseDecimal(s string) (string, error) {
	whole, fraction, point := strings.Cut(s, ".")
	switch {
	case s == "":
		return "", errors.New("has no number; write one such as 0.01")
	case s[0] == '-' || s[0] == '+':
		return "", errors.New("has a sign; write a number above zero without one, such as 0.01")
	case strings.Contains(s, ","):
		return "", errors.New("has a comma; write decimals with a point and no thousands separators, such as 1000.50")
	case strings.ContainsAny(s, "eE") && strings.Trim(s, "0123456789.eE+-") == "":
		return "", errors.New("has an exponent; write the number out, such as 0.001")
	case whole == "":
		return "", errors.New("begins with the point; write a digit before it, such as 0" + clip(s))
	case point && fraction == "":
		return "", errors.New("ends with the point; write digits after it, such as 1.0, or leave it out")
	case !isDigits(whole) || point && !isDigits(fraction):
		return "", errors.New("is not a number; write digits with at most one point, such as 0.01")
	case len(whole) > 1 && whole[0] == '0':
		return "", errors.New("has needless zeros in front; leave them out")
	case len(whole)+len(fraction) > maxDigits:
		return "", fmt.Errorf("has more than %d digits; no token can carry that", maxDigits)
	case strings.Trim(s, "0.") == "":
		return "", errors.New("is zero; write `free` for what costs nothing")
	}
	return s, nil
}

// checkSymbol reports whether s can be the symbol of an asset.
func checkSymbol(s string) error {
	if s == "" || len(s) > maxSymbol {
		return fmt.Errorf("the symbol of an asset has 1 to %d characters, such as usdc", maxSymbol)
	}
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !isDigit(c) && !strings.ContainsRune(".-_", rune(c))) {
			return errors.New("one space and the symbol of one asset follow the number, such as 0.02 eurc")
		}
	}
	return nil
}

// Atomic is the amount in the smallest units of an asset with that many
// decimals. What the asset cannot carry exactly is an error: cutting digits off
// would sell for less, and for nothing where only zeros are left.
func (m Money) Atomic(decimals int) (string, error) {
	if decimals < 0 || decimals > maxDecimals {
		return "", fmt.Errorf("an asset cannot have %d decimals; write 0 to %d", decimals, maxDecimals)
	}
	decimal, err := ParseDecimal(m.Decimal)
	if err != nil {
		return "", fmt.Errorf("amount %s: %w", quote(m.Decimal), err)
	}
	whole, fraction, _ := strings.Cut(decimal, ".")
	// Zeros at the end say nothing: 0.0100000 is exact in six decimals.
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > decimals {
		return "", fmt.Errorf("amount %s is finer than the asset, which has %d decimals; the smallest amount is %s",
			m, decimals, FormatAtomic("1", decimals))
	}
	atomic := strings.TrimLeft(whole+fraction+strings.Repeat("0", decimals-len(fraction)), "0")
	if len(atomic) >= maxDigits {
		n, ok := new(big.Int).SetString(atomic, 10)
		if !ok || n.Cmp(maxAtomic) > 0 {
			return "", fmt.Errorf("amount %s is more than a token with %d decimals can carry; write a smaller one", m, decimals)
		}
	}
	return atomic, nil
}

// String is the amount as ParseMoney reads it.
func (m Money) String() string {
	if m.Symbol == "" {
		return "$" + m.Decimal
	}
	return m.Decimal + " " + m.Symbol
}

// FormatAtomic writes an amount in the smallest units of an asset as a decimal:
// "10000" with 6 decimals is "0.01". A text that is no such amount comes back
// as it is, because it is for people to read.
func FormatAtomic(atomic string, decimals int) string {
	if !isDigits(atomic) || decimals < 0 || decimals > maxDecimals {
		return atomic
	}
	atomic = strings.TrimLeft(atomic, "0")
	if missing := decimals + 1 - len(atomic); missing > 0 {
		atomic = strings.Repeat("0", missing) + atomic
	}
	whole, fraction := atomic[:len(atomic)-decimals], strings.TrimRight(atomic[len(atomic)-decimals:], "0")
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

// isDigits reports whether s is one or more ASCII digits.
func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// clip shortens a text from the config for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// quote is clip in quotes, so that spaces and control characters show.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }
