package client

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Offer is one way to pay, checked.
type Offer struct {
	// Number is the offer's place in the challenge, from 1.
	Number int
	// Requirement is what the seller asks for, in the words of version 2.
	Requirement x402.Requirement
	// Network is where the money would move.
	Network money.Network
	// Asset is the token. If it is not Known, the built-in table does not have
	// it, and only its Network and Address are set.
	Asset money.Asset
	Known bool
	// Obstacle is why this client cannot pay, or may not. Nil: it can.
	Obstacle error
	// Doubts are why it does not pay unless Confirm agrees.
	Doubts []Doubt

	raw     jsontext.Value // as it came; nil in version 1
	amount  uint256.Int
	token   common.Address
	payTo   common.Address
	chainID uint64
	// name and version are the domain that the token signs in; of a Permit2 offer
	// they say that it takes EIP-2612 permits.
	name, version string
	// permit2: the token moves through Permit2, which has to be approved for it.
	permit2 bool
	// facilitator is who may charge an upto offer.
	facilitator common.Address
}

// Upto reports whether the amount is a maximum, of which the seller charges what
// was used.
func (o *Offer) Upto() bool { return o.Requirement.Scheme == x402.SchemeUpto }

// Permit2 reports whether the token moves through the Permit2 contract: the
// payer must have approved that for it.
func (o *Offer) Permit2() bool { return o.permit2 }

// Price is the price for people: "0.01 USDC", "up to 0.5 USDC", or for an asset
// that we do not know how many of its smallest units.
func (o *Offer) Price() string {
	if o.Upto() {
		return "up to " + o.most()
	}
	return o.most()
}

func (o *Offer) most() string {
	if !o.Known {
		return o.Requirement.Amount + " units of the unknown asset " + o.token.Hex()
	}
	return money.FormatAtomic(o.Requirement.Amount, o.Asset.Decimals) + " " + o.Asset.Symbol
}

// PayTo is who gets the money, in EIP-55 spelling.
func (o *Offer) PayTo() string { return o.payTo.Hex() }

// extra is what an offer of exact on EVM chains holds besides.
type extra struct {
	Name              string         `json:"name"`
	Version           string         `json:"version"`
	Transfer          string         `json:"assetTransferMethod"`
	Flow              string         `json:"paymentFlow"`
	ChainID           jsontext.Value `json:"chainId"`
	VerifyingContract string         `json:"verifyingContract"`
	Facilitator       string         `json:"facilitatorAddress"`
}

// check reads the offer and finds what stands in the way of paying it. What is
// signed later comes from what is read here and from nowhere else.
func (o *Offer) check() error {
	r := o.Requirement
	if r.Scheme != x402.SchemeExact && (r.Scheme != x402.SchemeUpto || o.raw == nil) {
		return fmt.Errorf("the scheme %.40q is not supported, only exact and, in version 2, upto", r.Scheme)
	}
	var ok bool
	if o.Network, ok = money.FindNetwork(r.Network); !ok || o.Network.Family != "eip155" || o.Network.CAIP2 != r.Network {
		return fmt.Errorf("the network %.80q is no EVM chain", r.Network)
	}
	var err error
	if o.chainID, err = strconv.ParseUint(strings.TrimPrefix(r.Network, "eip155:"), 10, 64); err != nil {
		return fmt.Errorf("the chain id of %.80q is too large", r.Network)
	}
	if err := o.readAmount(); err != nil {
		return err
	}
	if o.token, ok = parseAddress(r.Asset); !ok {
		return fmt.Errorf("the asset is %w", errAddress)
	}
	if o.payTo, err = readPayee(o.Network, r.PayTo); err != nil {
		return err
	}
	if r.MaxTimeoutSeconds <= 0 || int64(r.MaxTimeoutSeconds) > maxSeconds {
		return errors.New("maxTimeoutSeconds is no sensible time")
	}
	return o.readExtra()
}

// maxSeconds is 1,000 years: the sum with any clock fits everywhere.
const maxSeconds = 1000 * 366 * 24 * 3600

// readAmount reads the amount in the one spelling that it has.
func (o *Offer) readAmount() error {
	s := o.Requirement.Amount
	if s == "" || len(s) > 78 || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return errors.New("the amount is not a whole number above zero")
	}
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || o.amount.SetFromBig(n) {
		return errors.New("the amount is more than a token can carry")
	}
	return nil
}

// readPayee reads who gets the money. A spelling in one letter case has no
// checksum; one in two must fit it.
func readPayee(n money.Network, s string) (common.Address, error) {
	a, ok := parseAddress(s)
	if !ok {
		return a, fmt.Errorf("payTo is %w", errAddress)
	}
	if digits := s[2:]; digits != strings.ToLower(digits) && digits != strings.ToUpper(digits) && s != a.Hex() {
		return a, errors.New("payTo does not fit its checksum")
	}
	if _, err := money.CheckAddress(n, a.Hex()); err != nil {
		return a, fmt.Errorf("payTo %s takes no money: it is a zero, system, burn or token address", a.Hex())
	}
	return a, nil
}

// readExtra reads how the token moves and the domain that it signs in, and
// compares both with what we know of the token.
func (o *Offer) readExtra() error {
	var e extra
	if len(o.Requirement.Extra) > 0 {
		if err := json.Unmarshal(o.Requirement.Extra, &e); err != nil {
			return errors.New("extra cannot be read")
		}
	}
	o.permit2 = o.Upto() && e.Transfer == "" || e.Transfer == money.TransferPermit2 && o.raw != nil
	switch {
	case !o.permit2 && (o.Upto() || e.Transfer != "" && e.Transfer != money.TransferEIP3009):
		return fmt.Errorf("transfers by %.40q are not supported, only EIP-3009 and, in version 2, Permit2", e.Transfer)
	case e.Flow != "" && e.Flow != "authorization" && e.Flow != "upfront":
		return fmt.Errorf("the payment flow %.40q is not known", e.Flow)
	case !o.permit2 && (e.Name == "" || e.Version == ""):
		return errors.New("extra does not name the domain that the asset signs in")
	case len(e.ChainID) > 0 && strings.Trim(string(e.ChainID), `"`) != strconv.FormatUint(o.chainID, 10):
		return errors.New("extra names another chain than network")
	}
	if contract, ok := parseAddress(e.VerifyingContract); e.VerifyingContract != "" && (!ok || contract != o.token) {
		return errors.New("extra names another contract than asset")
	}
	if facilitator, ok := parseAddress(e.Facilitator); o.Upto() {
		if !ok || facilitator == (common.Address{}) {
			return errors.New("extra does not name the facilitator that may charge")
		}
		o.facilitator = facilitator
	}
	o.name, o.version = e.Name, e.Version
	o.Asset, o.Known = money.FindAsset(o.Network.CAIP2, o.token.Hex())
	switch {
	case !o.Known:
		o.Asset = money.Asset{Network: o.Network.CAIP2, Address: o.token.Hex()}
	case o.permit2 && o.name == "":
	case !o.permit2 && o.Asset.Transfer != money.TransferEIP3009:
		return fmt.Errorf("%s does not move by EIP-3009", o.Asset.Symbol)
	case o.Asset.Name != e.Name || o.Asset.Version != e.Version:
		return fmt.Errorf("the seller gives %s another name or version than it signs with", o.Asset.Symbol)
	}
	return nil
}

// domain is the EIP-712 domain of the token.
func (o *Offer) domain() eip712.Domain {
	return eip712.NewDomain(o.name, o.version, o.chainID, o.token)
}
