package offer

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Accept is one way in which the operator is willing to be paid.
type Accept struct {
	// The chain: a name such as `base`, `base-sepolia` or `solana`, or a CAIP-2
	// id such as `eip155:8453`.
	Network string `json:"network,omitempty"`

	// The token: a symbol such as `usdc`, or its address on the chain. An
	// address that is not in the built-in table needs `decimals`, and on EVM
	// chains `name` and `version` too.
	Asset string `json:"asset,omitempty"`

	// Who receives the money. EVM addresses in checksum form. Placeholders
	// `{env.*}` and `{file.*}` are resolved once, when the config loads.
	PayTo string `json:"pay_to,omitempty"`

	// How many decimals the token has. Only for tokens that are not in the
	// built-in table.
	Decimals *int `json:"decimals,omitempty"`

	// The name in the token's EIP-712 domain. A wrong one makes every payment
	// invalid. Only for tokens that are not in the built-in table.
	Name string `json:"name,omitempty"`

	// The version in the token's EIP-712 domain. Only for tokens that are not in
	// the built-in table.
	Version string `json:"version,omitempty"`

	// How the token moves: `eip3009` or `permit2`. Default: what the built-in
	// table says, else `eip3009`.
	Transfer string `json:"transfer,omitempty"`

	// `usd` says that one token is one US dollar, so that prices in dollars
	// apply to it. The built-in table knows this for its own tokens.
	Peg string `json:"peg,omitempty"`

	// A fixed amount of this token, instead of what the price says: for tokens
	// without a peg. An exact decimal.
	Amount string `json:"amount,omitempty"`
}

// MaxTimeout is how long an authorization may live that is asked for.
const MaxTimeout = 300 * time.Second

// Option is one accept entry at one price: a requirement without what only a
// facilitator can add.
type Option struct {
	// Requirement is what is asked for, without its Extra.
	Requirement x402.Requirement
	Network     money.Network
	Decimals    int
	Symbol      string
	PegUSD      bool
	Stock       bool // stock clients know the asset and pay it unasked

	extra map[string]any
}

// NewOption resolves an accept entry for a price in a scheme. It returns nil
// without an error when the entry cannot carry it: the price is in another
// currency, or the scheme is upto, which exists with Permit2 on EVM chains only.
func NewOption(a Accept, price money.Money, scheme string) (*Option, error) {
	network, ok := money.FindNetwork(a.Network)
	if !ok {
		return nil, fmt.Errorf("accept: unknown network %q; use a name such as base or base-sepolia, or a CAIP-2 id such as eip155:8453", a.Network)
	}
	asset, stock, err := assetFor(network, a)
	if err != nil {
		return nil, err
	}
	payTo, err := payeeFor(network, a, asset)
	if err != nil {
		return nil, err
	}
	amount, err := optionAmount(a, asset, price)
	if err != nil || amount == "" {
		return nil, err
	}
	if scheme == x402.SchemeUpto {
		if network.Family != "eip155" || a.Transfer == money.TransferEIP3009 {
			return nil, nil
		}
		asset.Transfer = money.TransferPermit2
	}
	o := &Option{
		Requirement: x402.Requirement{
			Scheme:            scheme,
			Network:           network.CAIP2,
			Amount:            amount,
			Asset:             asset.Address,
			PayTo:             payTo,
			MaxTimeoutSeconds: int(MaxTimeout / time.Second),
		},
		Network:  network,
		extra:    map[string]any{},
		Decimals: asset.Decimals,
		Symbol:   asset.Symbol,
		PegUSD:   asset.PegUSD,
		Stock:    stock,
	}
	if network.Family == "eip155" {
		if err := o.addEVMExtra(asset); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// Micros is the amount in millionths of a US dollar, rounded down; nil if the token is not
// pegged to it.
func (o *Option) Micros() *big.Int {
	n, ok := new(big.Int).SetString(o.Requirement.Amount, 10)
	if !o.PegUSD || !ok {
		return nil
	}
	scale := func(zeros int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(zeros)), nil) }
	return n.Quo(n.Mul(n, scale(6)), scale(o.Decimals))
}

// assetFor is the token of an accept entry, as the entry changes it, and whether stock
// clients know it.
func assetFor(network money.Network, a Accept) (asset money.Asset, stock bool, err error) {
	asset, known := money.FindAsset(network.CAIP2, a.Asset)
	if !known {
		if asset, err = customAsset(network, a); err != nil {
			return money.Asset{}, false, err
		}
	} else if a.Decimals != nil && *a.Decimals != asset.Decimals {
		return money.Asset{}, false, fmt.Errorf("accept: %s on %s has %d decimals, not %d; leave `decimals` out", asset.Symbol, network.Name, asset.Decimals, *a.Decimals)
	}
	if a.Name != "" {
		asset.Name = a.Name
	}
	if a.Version != "" {
		asset.Version = a.Version
	}
	if known && asset.Transfer == money.TransferEIP3009 {
		// Circle's and Tether's tokens have both, in one domain.
		asset.EIP2612 = true
	}
	switch a.Transfer {
	case "":
	case money.TransferEIP3009, money.TransferPermit2:
		asset.Transfer = a.Transfer
	default:
		return money.Asset{}, false, fmt.Errorf("accept: transfer: want eip3009 or permit2, not %q", a.Transfer)
	}
	switch a.Peg {
	case "":
	case "usd":
		asset.PegUSD = true
	default:
		return money.Asset{}, false, fmt.Errorf("accept: peg: want usd, not %q", a.Peg)
	}
	return asset, known && asset.Default, nil
}

// payeeFor is who receives the money of an accept entry.
func payeeFor(network money.Network, a Accept, asset money.Asset) (string, error) {
	payTo, err := money.CheckPayee(network, a.PayTo)
	if err != nil {
		return "", fmt.Errorf("accept: pay_to: %w", err)
	}
	if strings.EqualFold(payTo, asset.Address) {
		return "", fmt.Errorf("accept: pay_to is the token's own address %s: money sent there is lost", payTo)
	}
	return payTo, nil
}

// addEVMExtra adds what a payer needs to sign: the token's EIP-712 domain, and
// the transfer method when it is not the default.
func (o *Option) addEVMExtra(asset money.Asset) error {
	if asset.Transfer == money.TransferPermit2 {
		o.extra["assetTransferMethod"] = money.TransferPermit2
		// Name and version make the payer sign an EIP-2612 permit, which reverts
		// on tokens without it.
		if !asset.EIP2612 {
			return nil
		}
	}
	if asset.Name == "" || asset.Version == "" {
		return fmt.Errorf("accept: the token %s on %s needs `name` and `version` of its EIP-712 domain", asset.Address, o.Network.Name)
	}
	o.extra["name"], o.extra["version"] = asset.Name, asset.Version
	return nil
}

func customAsset(network money.Network, a Accept) (money.Asset, error) {
	if network.Family == "eip155" && !strings.HasPrefix(a.Asset, "0x") {
		return money.Asset{}, fmt.Errorf("accept: no token %q on %s in the built-in table; give its address, `decimals`, `name` and `version`", a.Asset, network.Name)
	}
	address, err := money.CheckAddress(network, a.Asset)
	if err != nil {
		return money.Asset{}, fmt.Errorf("accept: asset: %w", err)
	}
	if a.Decimals == nil {
		return money.Asset{}, fmt.Errorf("accept: the token %s on %s is not in the built-in table; give its `decimals`", address, network.Name)
	}
	if *a.Decimals < 0 || *a.Decimals > 36 {
		return money.Asset{}, fmt.Errorf("accept: decimals: want 0 to 36, not %d", *a.Decimals)
	}
	return money.Asset{Network: network.CAIP2, Address: address, Decimals: *a.Decimals, Transfer: money.TransferEIP3009, EIP2612: a.Name != ""}, nil
}

// optionAmount is the price in atomic units of the asset, or "" when the price
// is in another currency.
func optionAmount(a Accept, asset money.Asset, price money.Money) (string, error) {
	asked := price
	switch {
	case a.Amount != "":
		var err error
		if asked.Decimal, err = money.ParseDecimal(a.Amount); err != nil {
			return "", fmt.Errorf("accept: amount: %w", err)
		}
	case price.Symbol == "" && !asset.PegUSD:
		return "", nil
	case price.Symbol != "" && !strings.EqualFold(price.Symbol, asset.Symbol):
		return "", nil
	}
	atomic, err := asked.Atomic(asset.Decimals)
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w", strings.Trim(asset.Symbol+" "+asset.Address, " "), asset.Network, err)
	}
	return atomic, nil
}

// with returns the requirement as it is offered when a facilitator of this
// kind settles it, and false when that cannot be offered.
func (o *Option) with(kind *x402.Kind, first bool) (x402.Requirement, bool) {
	extra := make(map[string]any, len(o.extra)+2)
	family := o.Network.Family
	if family != "eip155" {
		// Other chains need what their facilitator names: a fee payer, a sponsor.
		if kind == nil {
			return x402.Requirement{}, false
		}
		if len(kind.Extra) > 0 {
			if err := json.Unmarshal(kind.Extra, &extra); err != nil {
				return x402.Requirement{}, false
			}
		}
		if _, ok := extra["feePayer"].(string); family == "solana" && !ok {
			return x402.Requirement{}, false
		}
	}
	maps.Copy(extra, o.extra)
	if o.Requirement.Scheme == x402.SchemeUpto {
		// The payer signs who may charge, which only the facilitator can say.
		address, ok := facilitatorAddress(kind)
		if !ok {
			return x402.Requirement{}, false
		}
		extra["facilitatorAddress"] = address
	}
	if first && announcesUpfront(family) {
		extra["paymentFlow"] = "upfront"
	}
	raw, err := json.Marshal(extra, json.Deterministic(true))
	if err != nil {
		return x402.Requirement{}, false
	}
	r := o.Requirement
	r.Extra = jsontext.Value(raw)
	return r, true
}

// announcesUpfront says where clients know that `exact` can be settled first.
func announcesUpfront(family string) bool {
	return slices.Contains([]string{"eip155", "solana", "near", "xrpl"}, family)
}

// facilitatorAddress is the account from which a facilitator settles upto, in
// the one spelling in which it is offered.
func facilitatorAddress(kind *x402.Kind) (string, bool) {
	var extra struct {
		FacilitatorAddress string `json:"facilitatorAddress"`
	}
	if kind == nil || len(kind.Extra) == 0 || json.Unmarshal(kind.Extra, &extra) != nil || !common.IsHexAddress(extra.FacilitatorAddress) {
		return "", false
	}
	address := common.HexToAddress(extra.FacilitatorAddress)
	return address.Hex(), address != common.Address{}
}

// sponsoring returns the extension by which a facilitator can pay the gas of
// the approval that the option needs of a payer, or "" if it needs none.
func (o *Option) sponsoring() string {
	switch {
	case o.extra["assetTransferMethod"] != money.TransferPermit2:
		return ""
	case o.extra["name"] != nil: // cheaper, and stock clients prefer it
		return x402.EIP2612GasSponsoring
	default:
		return x402.ERC20ApprovalGasSponsoring
	}
}

// ID names what the payer signs for, whatever the amount: no two options of a price have
// the same.
func (o *Option) ID() string {
	return strings.ToLower(o.Requirement.Network + "/" + o.Requirement.Asset + "/" + fmt.Sprint(o.extra["assetTransferMethod"]))
}

// CostNoLess says whether whoever pays one of some options could have paid one of the
// others, to the same payee, for no more.
func CostNoLess(dear, cheap []*Option) bool {
	for _, o := range dear {
		if !slices.ContainsFunc(cheap, func(other *Option) bool {
			x, y := o.Requirement, other.Requirement
			return x.Scheme == y.Scheme && x.Network == y.Network && x.Asset == y.Asset && x.PayTo == y.PayTo &&
				o.extra["assetTransferMethod"] == other.extra["assetTransferMethod"] && noLess(x.Amount, y.Amount)
		}) {
			return false
		}
	}
	return true
}

// noLess compares amounts in atomic units: digits without leading zeros.
func noLess(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a >= b
}
