package client

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// Limit is the most that one payment may cost, in dollars or in one asset. Make
// one with ParseLimit; the zero value speaks of nothing.
type Limit struct {
	text    string
	decimal string // of whole tokens, or of the smallest units for an address
	dollars bool
	symbol  string // lower case
	network string // CAIP-2
	address common.Address
}

// ParseLimit reads a limit:
//
//	0.10, $0.10                     dollars, for assets that are pegged to them
//	0.02 eurc                       an asset of the built-in table, on any network
//	10000 eip155:84532/0x036C…CF7e  the smallest units of an asset by address
//
// Zero is a limit too: nothing is paid without asking. The third form is also
// the consent to an asset that the built-in table does not know.
func ParseLimit(s string) (Limit, error) {
	amount, asset, inAsset := strings.Cut(s, " ")
	l := Limit{text: s, decimal: strings.TrimPrefix(amount, "$")}
	if !isZero(l.decimal) {
		if _, err := money.ParseDecimal(l.decimal); err != nil {
			return Limit{}, fmt.Errorf("limit %.80q: the amount %w", s, err)
		}
	}
	network, address, byAddress := strings.Cut(asset, "/")
	switch {
	case !inAsset:
		l.dollars = true
		l.text = "$" + l.decimal
		return l, nil
	case strings.HasPrefix(s, "$") || asset == "" || strings.ContainsAny(asset, " $"):
		return Limit{}, fmt.Errorf("limit %.80q: write 0.10 for dollars, or 0.02 eurc for an asset", s)
	case !byAddress:
		l.symbol = strings.ToLower(asset)
		return l, nil
	}
	n, ok := money.FindNetwork(network)
	a, isAddress := parseAddress(address)
	if !ok || !isAddress || strings.Contains(l.decimal, ".") {
		return Limit{}, fmt.Errorf("limit %.120q: write whole units, a network and an address, such as 10000 base/0x…", s)
	}
	l.network, l.address = n.CAIP2, a
	return l, nil
}

// String is the limit as ParseLimit reads it.
func (l Limit) String() string { return l.text }

// isZero reports whether s is 0, 0.0 and so on.
func isZero(s string) bool {
	return s == "0" || strings.HasPrefix(s, "0.") && len(s) > 2 && strings.Trim(s[2:], "0") == ""
}

// speaksOf reports whether the limit is about the asset of the offer.
func (l Limit) speaksOf(o *Offer) bool {
	switch {
	case l.dollars:
		return o.Known && o.Asset.PegUSD
	case l.symbol != "":
		return o.Known && strings.EqualFold(o.Asset.Symbol, l.symbol)
	case l.network != "":
		return o.Network.CAIP2 == l.network && o.token == l.address
	}
	return false
}

// allows reports whether the offer, which the limit speaks of, is not above it.
func (l Limit) allows(o *Offer) bool {
	decimals := o.Asset.Decimals
	if l.network != "" {
		decimals = 0
	}
	return atMost(o.amount.ToBig(), decimals, l.decimal)
}

// atMost compares units of an asset with a decimal of whole tokens, exactly: a
// limit may be finer than the asset.
func atMost(units *big.Int, decimals int, limit string) bool {
	whole, fraction, _ := strings.Cut(limit, ".")
	most, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok {
		return false
	}
	most.Mul(most, power10(decimals))
	return new(big.Int).Mul(units, power10(len(fraction))).Cmp(most) <= 0
}

func power10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// errAddress is for addresses that came from a seller.
var errAddress = errors.New("not an address: 0x and 40 hexadecimal digits")

// parseAddress reads an EVM address in any letter case.
func parseAddress(s string) (common.Address, bool) {
	if len(s) != 2+2*common.AddressLength || !strings.HasPrefix(s, "0x") || !common.IsHexAddress(s) {
		return common.Address{}, false
	}
	return common.HexToAddress(s), true
}
