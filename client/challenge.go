package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// maxBodyBytes bounds the body of a challenge of version 1; the x402 package
// bounds the header of version 2.
const maxBodyBytes = 64 << 10

// Challenge is what a seller asks for. Its texts are the seller's: whoever shows
// them on a terminal must clean them first.
type Challenge struct {
	// Version is the version of the protocol that it is read in.
	Version int
	// URL is what has the price: where redirects have led.
	URL *url.URL
	// Asked is what was asked for, before redirects.
	Asked *url.URL
	// Error is why the seller refuses.
	Error string
	// Resource is what the seller says is for sale.
	Resource x402.Resource
	// Offers are the ways to pay, in the seller's order.
	Offers []Offer

	resource, extensions jsontext.Value // as they came, to be repeated
}

// Insecure reports whether the challenge came over the network in the clear, so
// that whoever was on the way could have changed the price and the payee.
func (ch *Challenge) Insecure() bool { return ch.URL.Scheme != "https" && !isLoopback(ch.URL) }

// Elsewhere reports whether another origin has the price than the one that was
// asked. The same host over https is no other.
func (ch *Challenge) Elsewhere() bool {
	return ch.Asked != nil && !sameOrigin(ch.Asked, ch.URL) && !upgrades(ch.Asked, ch.URL)
}

// ChallengeError says why a challenge cannot be paid by this client, whatever
// the price: it cannot be read, or none of its offers can be signed.
type ChallengeError struct{ Err error }

// Error implements error.
func (e *ChallengeError) Error() string { return "the challenge cannot be paid: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ChallengeError) Unwrap() error { return e.Err }

func unpayable(format string, args ...any) error {
	return &ChallengeError{fmt.Errorf(format, args...)}
}

// readChallenge reads a 402, and closes its body. The header of version 2 goes
// before the body of version 1.
func (c *Client) readChallenge(resp *http.Response) (*Challenge, error) {
	defer resp.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	headers := resp.Header.Values(x402.HeaderPaymentRequired)
	var ch *Challenge
	switch {
	case c.Version != 0 && c.Version != x402.V1 && c.Version != x402.V2:
		return nil, unpayable("there is no version %d of the protocol", c.Version)
	case c.Version != x402.V1 && len(headers) > 1:
		return nil, unpayable("there are %d of them", len(headers))
	case c.Version != x402.V1 && len(headers) == 1:
		ch, err = readV2(headers[0])
	case c.Version == x402.V2:
		return nil, unpayable("there is none of version 2")
	case err != nil:
		return nil, unpayable("its body ended early: %w", err)
	default:
		ch, err = readV1(body)
	}
	if err != nil {
		return nil, &ChallengeError{err}
	}
	ch.URL = resp.Request.URL
	return ch, nil
}

func readV2(header string) (*Challenge, error) {
	d, err := x402.DecodeChallenge(header)
	if err != nil {
		return nil, err
	}
	ch := &Challenge{
		Version: x402.V2, Error: d.Error, Resource: d.Resource,
		resource: d.RawResource, extensions: d.Extensions,
	}
	for i, r := range d.Accepts {
		o := Offer{Requirement: r, raw: d.RawAccepts[i]}
		if d.Unread[i] != nil {
			o.Obstacle = errUnread
		}
		ch.Offers = append(ch.Offers, o)
	}
	return ch, nil
}

// errUnread repeats nothing of an offer that cannot be read.
var errUnread = errors.New("it cannot be read")

func readV1(body []byte) (*Challenge, error) {
	if len(body) > maxBodyBytes {
		return nil, fmt.Errorf("its body has more than %d bytes", maxBodyBytes)
	}
	var w struct {
		X402Version int              `json:"x402Version"`
		Error       any              `json:"error"`
		Accepts     []jsontext.Value `json:"accepts"`
	}
	if err := json.Unmarshal(body, &w); err != nil || w.X402Version != x402.V1 {
		return nil, errors.New("the 402 holds none that we can read, neither as header (version 2) nor as body (version 1)")
	}
	ch := &Challenge{Version: x402.V1}
	ch.Error, _ = w.Error.(string)
	for _, raw := range w.Accepts {
		o, resource := readOfferV1(raw)
		if len(ch.Offers) == 0 {
			ch.Resource = resource
		}
		ch.Offers = append(ch.Offers, o)
	}
	return ch, nil
}

// readOfferV1 reads an offer into the words of version 2. One that cannot be
// read does not spoil the others.
func readOfferV1(raw jsontext.Value) (Offer, x402.Resource) {
	var w struct {
		Scheme            string         `json:"scheme"`
		Network           string         `json:"network"`
		MaxAmountRequired string         `json:"maxAmountRequired"`
		Asset             string         `json:"asset"`
		PayTo             string         `json:"payTo"`
		MaxTimeoutSeconds int            `json:"maxTimeoutSeconds"`
		Extra             jsontext.Value `json:"extra"`
		Resource          string         `json:"resource"`
		Description       string         `json:"description"`
		MimeType          string         `json:"mimeType"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return Offer{Obstacle: errUnread}, x402.Resource{}
	}
	o := Offer{Requirement: x402.Requirement{
		Scheme: w.Scheme, Network: w.Network, Amount: w.MaxAmountRequired, Asset: w.Asset,
		PayTo: w.PayTo, MaxTimeoutSeconds: w.MaxTimeoutSeconds, Extra: w.Extra,
	}}
	// Names only: an id of version 2 would be sent back under another name.
	n, ok := money.FindNetwork(w.Network)
	if name, _ := x402.LegacyNetwork(n.CAIP2); !ok || name == "" || name != w.Network {
		o.Obstacle = fmt.Errorf("version 1 has no network %.40q", w.Network)
	}
	o.Requirement.Network = n.CAIP2
	return o, x402.Resource{URL: w.Resource, Description: w.Description, MimeType: w.MimeType}
}
