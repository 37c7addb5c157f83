package client

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const maxRedirects = 10

var (
	errTooManyRedirects = errors.New("more than 10 redirects")
	errDowngrade        = errors.New("refused to follow a redirect from https to http")
)

// followUnpaid follows redirects of a request without payment, except out of
// https: whoever is on the way could then name the price and the payee.
func followUnpaid(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return errTooManyRedirects
	case downgrades(via[len(via)-1].URL, next.URL):
		return errDowngrade
	}
	return nil
}

// followPaid follows redirects of a request with a payment. The payment stays
// at the origin that asked for it. Once there is a receipt the redirect is the
// goods (downloads hand out signed URLs), and is followed without the payment.
// What may not be followed is the answer.
func followPaid(result *Result) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		result.seen = true // whatever becomes of the next request
		if receipt := readReceipt(next.Response.Header); receipt != nil {
			result.Receipt = receipt
		}
		last := via[len(via)-1].URL
		switch {
		case len(via) >= maxRedirects, downgrades(last, next.URL):
			return http.ErrUseLastResponse
		case result.Paid():
			for _, name := range paymentHeaders {
				next.Header.Del(name)
			}
			return nil
		case sameOrigin(last, next.URL):
			return nil
		default:
			return http.ErrUseLastResponse
		}
	}
}

func downgrades(from, to *url.URL) bool {
	return from.Scheme == "https" && to.Scheme != "https"
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

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
