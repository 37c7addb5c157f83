package offer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// words are what the challenge says to people.
func (o *Offer) words() x402.Words {
	return x402.Words{Price: inWords(o.options), Description: o.of.Description, Help: o.of.Help}
}

// inWords says for people what it costs, such as `0.01 USDC on Base or Solana`.
func inWords(options []*Option) string {
	var amounts []string
	on := map[string][]string{}
	for _, o := range options {
		amount := o.Amount()
		if on[amount] == nil {
			amounts = append(amounts, amount)
		}
		if name := o.Network.Title(); !slices.Contains(on[amount], name) {
			on[amount] = append(on[amount], name)
		}
	}
	for i, amount := range amounts {
		amounts[i] = amount + " on " + strings.Join(on[amount], " or ")
	}
	return strings.Join(amounts, ", or ")
}

// Amount is how much of its token an option asks for, such as `0.01 USDC`.
func (o *Option) Amount() string {
	amount := money.FormatAtomic(o.Requirement.Amount, o.Decimals) + " " + cmp.Or(strings.ToUpper(o.Symbol), o.Requirement.Asset)
	if o.Requirement.Scheme == x402.SchemeUpto {
		return "up to " + amount
	}
	return amount
}
