package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const maxRedirects = 10

var (
	errTooManyRedirects = errors.New("more than 10 redirects")
	errDowngrade        = errors.New("refused to follow a redirect from https to http")
	errElsewhere        = errors.New("refused to send to another origin what was meant for this one; ask there yourself, if you mean it")
)

// followUnpaid follows redirects of a request without payment, except out of
// https: whoever is on the way could then name the price and the payee. What was
// given for an origin stays there.
func (c *Client) followUnpaid(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return errTooManyRedirects
	case downgrades(via[len(via)-1].URL, next.URL):
		return errDowngrade
	}
	return c.keepBack(next, via)
}

// followPaid follows redirects of a request with a payment. The payment stays
// at the origin that asked for it. Once there is a receipt the redirect is the
// goods (downloads hand out signed URLs), and is followed without the payment.
// What may not be followed is the answer.
func (c *Client) followPaid(result *Result) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		result.seen = true // whatever becomes of the next request
		result.keep(readReceipt(next.Response.Header))
		last := via[len(via)-1].URL
		switch {
		case len(via) >= maxRedirects, downgrades(last, next.URL), !result.Paid() && !sameOrigin(last, next.URL), c.keepBack(next, via) != nil:
			if next.Body != nil {
				_ = next.Body.Close() // nobody else does
			}
			return http.ErrUseLastResponse
		case result.Paid():
			for _, name := range paymentHeaders {
				next.Header.Del(name)
			}
		}
		return nil
	}
}

// keepBack takes off a redirected request what was given for another origin: all
// headers but the harmless, the credentials of the URL, the name of the host. What
// has left an origin does not get them back, because it is the other origin that
// says where it goes. A body, or a request that acts, cannot leave at all.
func (c *Client) keepBack(next *http.Request, via []*http.Request) error {
	first := via[0]
	away := func(r *http.Request) bool { return !sameOrigin(first.URL, r.URL) }
	// A seller does not choose our credentials either.
	next.URL.User = first.URL.User
	if !away(next) && !slices.ContainsFunc(via, away) {
		return nil
	}
	if next.Method != http.MethodGet && next.Method != http.MethodHead || next.Body != nil && next.Body != http.NoBody {
		return fmt.Errorf("%w: %s", errElsewhere, origin(next.URL))
	}
	next.URL.User, next.Host = nil, ""
	var withheld []string
	for name := range next.Header {
		if !harmless(name) {
			next.Header.Del(name)
		}
	}
	for name := range first.Header {
		if !harmless(name) && !slices.Contains(paymentHeaders, name) {
			withheld = append(withheld, name)
		}
	}
	slices.Sort(withheld)
	if c.OnRedirect != nil && !sameOrigin(via[len(via)-1].URL, next.URL) {
		c.OnRedirect(next.URL, withheld)
	}
	return nil
}

// harmless reports whether a header holds nothing that is meant for one origin
// alone. Any other may: keys have many names.
func harmless(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Range", "User-Agent":
		return true
	}
	return false
}

func downgrades(from, to *url.URL) bool {
	return from.Scheme == "https" && to.Scheme != "https"
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

// upgrades reports whether the redirect only leads into https.
func upgrades(from, to *url.URL) bool {
	return from.Scheme == "http" && to.Scheme == "https" && strings.EqualFold(from.Hostname(), to.Hostname())
}

// origin is the origin of a URL in words.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// hostPort is the host with its port, also where the scheme implies it.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// hideUser takes the user out of the URL in an error: a token may stand there.
func hideUser(err error) error {
	failed, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	if u, parsing := url.Parse(failed.URL); parsing == nil {
		u.User = nil
		failed.URL = u.String()
	}
	return err
}
