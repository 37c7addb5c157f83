package check

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// largeChallenge is where some proxies begin to refuse a header.
	largeChallenge = 7 << 10
	// largeHeader is what Node's clients take of all headers together.
	largeHeader = 16 << 10
)

// challenge looks at a 402 as clients do.
func (c *checker) challenge(t Target, a ask, r *answer) {
	c.cacheable(t, a, r)
	c.cors(t, a, r)
	headers := r.header.Values(x402.HeaderPaymentRequired)
	switch {
	case len(headers) == 0:
		c.find(t, a, r, Warning, ruleChallenge, "a 402 without a PAYMENT-REQUIRED header: clients of version 2 cannot read the price; another program may have answered it")
	case len(headers) > 1:
		c.find(t, a, r, Warning, ruleChallenge, "there are %d PAYMENT-REQUIRED headers; clients do not know which one counts", len(headers))
	default:
		c.version2(t, a, r, headers[0])
	}
	c.version1(t, a, r)
	total := 0
	for name, values := range r.header {
		for _, v := range values {
			total += len(name) + len(v) + 4
		}
	}
	if total > largeHeader {
		c.find(t, a, r, Warning, ruleTooLarge, "the headers have %d bytes; clients that run on Node refuse more than %d", total, largeHeader)
	}
}

func (c *checker) version2(t Target, a ask, r *answer, header string) {
	if len(header) > largeChallenge {
		c.find(t, a, r, Warning, ruleTooLarge, "the challenge has %d bytes; some clients and proxies refuse headers near 8 kB: accept fewer tokens, or write shorter descriptions", len(header))
	}
	ch, err := x402.DecodeChallenge(header)
	if err != nil {
		c.find(t, a, r, Warning, ruleChallenge, "clients cannot read the challenge: %s", clip(err.Error()))
		return
	}
	c.resource(t, a, r, ch.Resource.URL)
	payable, test := 0, 0
	var problems []string
	for i, offer := range ch.Accepts {
		if ch.Unread[i] != nil {
			problems = append(problems, "it cannot be read")
			c.find(t, a, r, Warning, ruleUnpayable, "offer %d cannot be read, and some clients refuse the others for that: %s", i+1, clip(ch.Unread[i].Error()))
			continue
		}
		if problem := unpayable(offer); problem != "" {
			problems = append(problems, problem)
			c.find(t, a, r, Warning, ruleUnpayable, "offer %d cannot be paid by stock clients: %s", i+1, problem)
			continue
		}
		payable++
		network, _ := money.FindNetwork(offer.Network)
		if network.Test {
			test++
		}
		if doubt := unasked(offer); doubt != "" {
			c.find(t, a, r, Warning, ruleUnasked, "offer %d: %s", i+1, doubt)
		}
	}
	switch {
	case len(ch.Accepts) == 0:
		c.find(t, a, r, Warning, ruleUnpayable, "the challenge has no offer")
	case payable == 0:
		c.find(t, a, r, Warning, ruleUnpayable, "no stock client can pay any of the %d offers", len(problems))
	case test > 0 && test < payable:
		c.find(t, a, r, Warning, ruleTestMoney, "test money and real money buy the same: whoever has test money pays nothing")
	case test > 0:
		c.find(t, a, r, Warning, ruleTestMoney, "only test money is asked for, which is worth nothing")
	}
}

// resource compares the URL in a challenge with the one that was asked for.
func (c *checker) resource(t Target, a ask, r *answer, resource string) {
	u, err := url.Parse(resource)
	switch {
	case err != nil || u.Host == "":
		c.find(t, a, r, Warning, ruleResource, "the challenge names no URL that can be read: %q", clip(resource))
	case u.Scheme != t.URL.Scheme && c.Connect == "":
		c.find(t, a, r, Warning, ruleResource, "the challenge says %s:// for what was asked for by %s://; set public_url, or trusted_proxies for what ends TLS", clip(u.Scheme), t.URL.Scheme)
	case !strings.EqualFold(u.Host, t.URL.Host) && c.Connect == "":
		c.find(t, a, r, Warning, ruleResource, "the challenge names the host %q; set public_url", clip(u.Host))
	}
}

// unpayable says why a stock client cannot pay an offer; "" if one can.
func unpayable(r x402.Requirement) string {
	network, ok := money.FindNetwork(r.Network)
	switch {
	case r.Scheme != x402.SchemeExact && r.Scheme != x402.SchemeUpto:
		return "stock clients do not know its scheme " + clip(r.Scheme)
	case !ok || network.CAIP2 != r.Network || network.Name == network.CAIP2:
		return "they do not know the network " + clip(r.Network)
	case r.Amount == "" || r.Amount[0] == '0' || strings.Trim(r.Amount, "0123456789") != "":
		return "the amount is not a whole number above zero"
	case r.MaxTimeoutSeconds <= 0:
		return "maxTimeoutSeconds is not above zero"
	}
	if _, err := money.CheckAddress(network, r.PayTo); err != nil {
		return "payTo is no address that takes money there"
	}
	var extra struct {
		Name     string `json:"name"`
		Version  string `json:"version"`
		Transfer string `json:"assetTransferMethod"`
		FeePayer string `json:"feePayer"`
	}
	if len(r.Extra) > 0 && json.Unmarshal(r.Extra, &extra) != nil {
		return "its extra cannot be read"
	}
	asset, known := money.FindAsset(r.Network, r.Asset)
	switch {
	case network.Family == "solana" && extra.FeePayer == "":
		return "it names no feePayer"
	case network.Family != "eip155" || extra.Transfer == money.TransferPermit2:
	case extra.Name == "" || extra.Version == "":
		return "extra lacks the asset's name or version, without which nothing can be signed"
	case known && asset.Transfer == money.TransferEIP3009 && (asset.Name != extra.Name || asset.Version != extra.Version):
		return "it gives " + asset.Symbol + " another name or version than that signs with, so every payment is invalid"
	}
	return ""
}

// unasked says why a stock client does not pay an offer unless it is told to.
func unasked(r x402.Requirement) string {
	asset, known := money.FindAsset(r.Network, r.Asset)
	if !known || !asset.Default {
		return "stock clients pay this asset only when they are told to"
	}
	price := money.FormatAtomic(r.Amount, asset.Decimals)
	if whole, fraction, _ := strings.Cut(price, "."); asset.PegUSD && whole != "0" && (whole != "1" || strings.Trim(fraction, "0") != "") {
		return "the price is " + price + " " + asset.Symbol + "; stock clients refuse more than 1 USD unless they are told to"
	}
	return ""
}

// version1 looks at the body, which clients of version 1 read. They refuse the
// whole of it for one entry that they do not understand.
func (c *checker) version1(t Target, a ask, r *answer) {
	if a.method == http.MethodHead {
		return
	}
	var w struct {
		X402Version int `json:"x402Version"`
		Accepts     []struct {
			Scheme   string  `json:"scheme"`
			Network  string  `json:"network"`
			Resource string  `json:"resource"`
			Desc     *string `json:"description"`
		} `json:"accepts"`
	}
	if err := json.Unmarshal(r.body, &w); err != nil || w.X402Version != x402.V1 {
		c.find(t, a, r, Warning, ruleVersion1, "the body holds no challenge of version 1: old clients cannot pay")
		return
	}
	if len(w.Accepts) == 0 {
		c.find(t, a, r, Warning, ruleVersion1, "nothing that is accepted can be paid by clients of version 1")
	}
	for i, offer := range w.Accepts {
		u, err := url.Parse(offer.Resource)
		if err != nil || u.Host == "" || offer.Scheme != x402.SchemeExact || offer.Desc == nil || !knownInV1(offer.Network) {
			c.find(t, a, r, Warning, ruleVersion1, "clients of version 1 do not understand entry %d of the body, and refuse all of it for that", i+1)
		}
	}
}

func knownInV1(name string) bool {
	n, ok := money.FindNetwork(name)
	legacy, strict := x402.LegacyNetwork(n.CAIP2)
	return ok && strict && legacy == name
}

// cacheable finds a 402 that a cache may keep.
func (c *checker) cacheable(t Target, a ask, r *answer) {
	control := strings.ToLower(strings.Join(r.header.Values("Cache-Control"), ","))
	switch {
	case r.header.Get("Age") != "":
		c.find(t, a, r, Warning, ruleCacheable, "the 402 comes out of a cache (it has an Age): prices will be old, and payers may not get past it")
	case !strings.Contains(control, "no-store"):
		c.find(t, a, r, Warning, ruleCacheable, "the 402 is not `no-store`: a cache may hand it to who has paid")
	}
}

// cors finds headers that scripts of other sites may not read.
func (c *checker) cors(t Target, a ask, r *answer) {
	if a.header.Get("Origin") == "" {
		return
	}
	exposed := strings.Split(strings.ToLower(strings.ReplaceAll(strings.Join(r.header.Values("Access-Control-Expose-Headers"), ","), " ", "")), ",")
	switch {
	case len(r.header.Values("Access-Control-Allow-Origin")) != 1:
		c.find(t, a, r, Warning, ruleCORS, "browsers on other sites cannot read the price: there must be one Access-Control-Allow-Origin (`cors off` leaves it to the upstream)")
	case !slices.Contains(exposed, "*") && (!slices.Contains(exposed, "payment-required") || !slices.Contains(exposed, "payment-response")):
		c.find(t, a, r, Warning, ruleCORS, "browsers on other sites cannot read the price: Access-Control-Expose-Headers lacks PAYMENT-REQUIRED or PAYMENT-RESPONSE")
	}
}
