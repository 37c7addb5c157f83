package x402

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// HeaderSettlementOverrides is the answer header by which an upstream says what
// is to be charged of an upto payment. It is for us alone, never for the payer.
const HeaderSettlementOverrides = "Settlement-Overrides"

// Usage is an upto payment as far as its charge depends on it.
type Usage struct {
	// Maximum is what the payer signed, in atomic units.
	Maximum string
	// Decimals are the asset's.
	Decimals int
	// Dollars says that one token is one dollar, so that `$0.05` can be charged.
	Dollars bool
}

// Charge reads a Settlement-Overrides header, {"amount": "..."}, and returns
// what is to be charged in atomic units, from 0 to the maximum. As with the
// official servers the amount is one of
//
//	"1234"    atomic units
//	"12.34%"  of the maximum, with at most two decimals, rounded down
//	"$0.05"   dollars, rounded down to the asset's decimals
//
// The official servers hand on whatever else they find. Here it is an error,
// and so is an amount above the maximum: the upstream's author has to know.
func (u Usage) Charge(header string) (string, error) {
	if len(header) > maxOverrides {
		return "", fmt.Errorf("the header is longer than %d bytes", maxOverrides)
	}
	var said struct {
		Amount *string `json:"amount"`
	}
	if err := json.Unmarshal([]byte(header), &said); err != nil {
		return "", errors.New(`it is not of the form {"amount":"1234"}, with the amount as a string`)
	}
	if said.Amount == nil {
		return "", errors.New("it has no amount")
	}
	maximum, ok := new(big.Int).SetString(u.Maximum, 10)
	if !ok {
		return "", errors.New("the maximum is no number")
	}
	charge, err := u.parse(*said.Amount, maximum)
	if err != nil {
		return "", fmt.Errorf("amount %.80q: %w", *said.Amount, err)
	}
	if charge.Cmp(maximum) > 0 {
		return "", fmt.Errorf("amount %.80q is %s, above the maximum of %s", *said.Amount, charge, maximum)
	}
	return charge.String(), nil
}

// maxOverrides bounds what is read of the header.
const maxOverrides = 1024

// maxAmount is how many digits an amount may have: more than any token carries.
const maxAmount = 78

func (u Usage) parse(amount string, maximum *big.Int) (*big.Int, error) {
	if percent, ok := strings.CutSuffix(amount, "%"); ok {
		hundredths, err := scaled(percent, 2)
		if err != nil {
			return nil, err
		}
		n := new(big.Int).Mul(maximum, hundredths)
		return n.Div(n, big.NewInt(100*100)), nil
	}
	if dollars, ok := strings.CutPrefix(amount, "$"); ok {
		if !u.Dollars {
			return nil, errors.New("the asset is not pegged to the dollar")
		}
		whole, fraction, point := strings.Cut(dollars, ".")
		if point && len(fraction) > u.Decimals && isDigits(fraction) {
			dollars = whole + "." + fraction[:u.Decimals]
			if u.Decimals == 0 {
				dollars = whole
			}
		}
		return scaled(dollars, u.Decimals)
	}
	return scaled(amount, 0)
}

// scaled reads a decimal without sign or exponent and with at most so many
// decimals, in units of the last of them.
func scaled(s string, decimals int) (*big.Int, error) {
	whole, fraction, point := strings.Cut(s, ".")
	switch {
	case !isDigits(whole) || point && !isDigits(fraction):
		return nil, errors.New("not a number of digits, with at most one point between them")
	case len(fraction) > decimals:
		return nil, errors.New("more than " + strconv.Itoa(decimals) + " decimals")
	case len(whole)+decimals > maxAmount:
		return nil, errors.New("too many digits")
	}
	n, ok := new(big.Int).SetString(whole+fraction+strings.Repeat("0", decimals-len(fraction)), 10)
	if !ok {
		return nil, errors.New("not a number")
	}
	return n, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
