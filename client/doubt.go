package client

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// DoubtKind says what a doubt is about.
type DoubtKind int

// Kinds of doubts.
const (
	// OverLimit: the price is above a limit, or no limit speaks of the asset.
	OverLimit DoubtKind = iota + 1
	// UnknownAsset: nobody here can say what the asset is worth.
	UnknownAsset
	// LongLife: the seller could take the money very much later.
	LongLife
	// OtherOrigin: a redirect has led to another seller than the one that was asked.
	OtherOrigin
)

// Doubt is a reason not to pay without asking.
type Doubt struct {
	Kind DoubtKind
	// Text says it in words, such as "0.5 USDC is above the limit of $0.10".
	Text string
}

// DoubtError says that an offer was not paid because nobody agreed to it.
type DoubtError struct{ Offer Offer }

// Error implements error.
func (e *DoubtError) Error() string {
	texts := make([]string, len(e.Offer.Doubts))
	for i, d := range e.Offer.Doubts {
		texts[i] = d.Text
	}
	return "not paid: " + strings.Join(texts, "; ")
}

// maxLife is how many seconds an authorization may live without anybody asking:
// 25 hours, the longest that our gate takes.
const maxLife = 25 * 3600

// doubt finds what speaks against paying without asking.
func (o *Offer) doubt(limits []Limit) {
	spoken := false
	for _, l := range limits {
		if !l.speaksOf(o) {
			continue
		}
		spoken = true
		if !l.allows(o) {
			o.addDoubt(OverLimit, "%s is above the limit of %s", o.Price(), l)
		}
	}
	byAddress := func(l Limit) bool { return l.network != "" && l.speaksOf(o) }
	switch {
	case !o.Known && !slices.ContainsFunc(limits, byAddress):
		o.addDoubt(UnknownAsset, "nothing is known about the asset %s/%s", o.Network.CAIP2, o.token.Hex())
	case !spoken:
		o.addDoubt(OverLimit, "no limit says how much %s may be spent", o.Asset.Symbol)
	}
	if life := o.Requirement.MaxTimeoutSeconds; life > maxLife {
		o.addDoubt(LongLife, "the seller could take the money as late as %d days from now", life/(24*3600))
	}
}

func (o *Offer) addDoubt(kind DoubtKind, format string, args ...any) {
	o.Doubts = append(o.Doubts, Doubt{kind, fmt.Sprintf(format, args...)})
}

// mayPay says whether the key may pay there. The keys of development accounts
// are public, so that only test money may be theirs.
func (k *Key) mayPay(o *Offer, at *url.URL) error {
	const devChain = 84532
	if k == nil || !k.dev || o.Network.Test && (isLoopback(at) || o.chainID == devChain) {
		return nil
	}
	return errors.New("a development account pays only with test money, on this machine or on base-sepolia")
}

// isLoopback reports whether the URL leads to this machine.
func isLoopback(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
