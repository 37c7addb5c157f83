// Package client is a client that pays. It sends a request, reads the 402 of
// either protocol version, checks what is asked for, signs one authorization, by
// EIP-3009 or for Permit2, and sends the request again with it.
//
// A signature is money that may be gone, so the client signs once per call of
// Do and never more. Whatever happens afterwards (503, a lost connection), it
// sends that same payment again: whoever took it knows it by its nonce, and a
// second copy moves nothing. Only the caller, told of a definite refusal, can
// decide to pay anew.
package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// DefaultWait is how long a payment is sent again before Do gives up.
	DefaultWait = 2 * time.Minute
	// maxHeaderBytes bounds the header of an answer, challenge included.
	maxHeaderBytes = 256 << 10
)

// Client pays for requests. The zero value can do everything but pay: it has no
// key and no limits. A Client must not be changed while it is in use; then it is
// safe for concurrent use.
type Client struct {
	// Key signs. Without one, Do ends with ErrNoKey after the challenge.
	Key *Key
	// Limits bound what one payment may cost. Every limit that speaks of an
	// asset must hold, and one must speak of it: without limits nothing is paid
	// unless Confirm agrees.
	Limits []Limit
	// Networks, if any, are the only networks to pay on, the best first: names
	// such as base, or CAIP-2 ids. Empty means all, in the seller's order.
	Networks []string
	// Assets are the same for assets: symbols such as usdc, or addresses.
	Assets []string
	// Version is x402.V1 or x402.V2 to speak only that version of the protocol,
	// and 0 to take version 2 where the seller speaks it.
	Version int
	// Confirm, if set, is called before a payment is signed, with all that will
	// be signed. An error ends Do, which returns it. Nil is consent, also to
	// every doubt of the offer. Without Confirm an offer with doubts is not paid.
	Confirm func(context.Context, *Payment) error
	// OnResend, if set, is told before each pause after which the same payment
	// is sent again.
	OnResend func(Resend)
	// OnRedirect, if set, is told before a redirect to another origin is followed,
	// with the names of the headers that do not go there.
	OnRedirect func(to *url.URL, withheld []string)
	// Wait bounds the time in which the same payment is sent again, and so the
	// pauses that a server may ask for. The last copy has ten seconds to be
	// answered. 0 means DefaultWait, less than 0 that one copy is sent.
	Wait time.Duration
	// Timeout bounds how long a seller may be silent: until an answer has begun,
	// and within a body that is handed out. What is read here, such as a
	// challenge, has to come whole in that time. 0 means DefaultTimeout, less than
	// 0 no bound.
	Timeout time.Duration
	// MaxTime bounds how long a seller may take in all for one answer. Each KiB
	// adds a second, so that a stream which flows goes on as long as it likes. 0
	// means DefaultMaxTime, less than 0 no bound.
	MaxTime time.Duration
	// RPC is the URL of a node with which to look up whether a token is approved for
	// Permit2. With it a token with EIP-2612 is approved by signature, for exactly
	// the price, where the seller offers that. "": nothing is looked up.
	RPC string
	// Transport sends requests. Nil means one of http.DefaultTransport's kind,
	// which hands over bodies as they came, compressed or not.
	Transport http.RoundTripper
	// Now is the clock that authorizations are dated with, and Random where
	// nonces come from. Nil means time.Now and crypto/rand.
	Now    func() time.Time
	Random io.Reader

	// pause sleeps; tests do not.
	pause func(context.Context, time.Duration) error
}

// Errors of Do before anything was signed. The others are *ChallengeError,
// *DoubtError, and what Confirm returned.
var (
	// ErrNoKey: the request has a price, and there is no key to pay it with.
	ErrNoKey = errors.New("no key to pay with")
	// ErrNotReplayable: the request has a body that can be sent only once. It is
	// sent twice at least: without payment and with it.
	ErrNotReplayable = errors.New("the request's body cannot be sent twice: GetBody is missing")
	// ErrCarriesPayment: the request has a payment header of its own.
	ErrCarriesPayment = errors.New("the request carries a payment already")
)

// Do sends the request and, if the answer is a challenge, pays. The request's
// body is never buffered, so it needs GetBody; the answer's body streams, and
// the caller closes it.
//
// Once the seller has answered there is a Result, also beside an error: it says
// what was asked for, and whether something was signed. An error with a payment
// that has left (Outcome Pending) means that nobody knows whether the money has
// moved; see Send.
func (c *Client) Do(req *http.Request) (*Result, error) {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return nil, ErrNotReplayable
	}
	for _, name := range paymentHeaders {
		if req.Header.Get(name) != "" {
			return nil, ErrCarriesPayment
		}
	}
	resp, g, err := c.exchange(req, bound(c.Timeout, DefaultTimeout), c.followUnpaid)
	if err != nil {
		return nil, fmt.Errorf("asking for the price: %w", err)
	}
	if resp.StatusCode != http.StatusPaymentRequired {
		g.handOut()
		return &Result{Outcome: Unpriced, Response: resp}, nil
	}
	result := &Result{Outcome: Unpaid}
	if result.Challenge, err = c.readChallenge(resp); err != nil {
		return result, err
	}
	result.Challenge.Asked = req.URL
	p, err := c.prepare(result.Challenge, resp.Request)
	if err != nil {
		return result, err
	}
	if err := c.agree(req.Context(), p); err != nil {
		return result, err
	}
	if err := c.sponsor(req.Context(), p); err != nil {
		return result, err
	}
	if err := p.sign(c.Key); err != nil {
		return result, err
	}
	return c.Send(req.Context(), p)
}

// agree makes sure that the payment is wanted.
func (c *Client) agree(ctx context.Context, p *Payment) error {
	if c.Confirm != nil {
		shown := *p // what is signed stays as it was checked, whatever Confirm does
		if err := c.Confirm(ctx, &shown); err != nil {
			return err
		}
	} else if len(p.Offer.Doubts) > 0 {
		return &DoubtError{Offer: p.Offer}
	}
	if c.Key == nil {
		return ErrNoKey
	}
	return ctx.Err()
}

// paymentHeaders are what only this package puts on a request.
var paymentHeaders = []string{x402.HeaderPaymentSignature, x402.HeaderXPayment}

func (c *Client) transport() http.RoundTripper {
	if c.Transport != nil {
		return c.Transport
	}
	return sharedTransport
}

// sharedTransport keeps connections between the challenge and the payment.
var sharedTransport = func() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // the program has put its own there
	}
	t = t.Clone()
	t.DisableCompression = true
	t.MaxResponseHeaderBytes = maxHeaderBytes
	return t
}()

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) random() io.Reader {
	if c.Random != nil {
		return c.Random
	}
	return rand.Reader
}
