// Package fetch gets small documents from the public internet, and from nowhere else: what
// it is told to get may be said by a stranger, and name a host of the operator's own.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Limits of all fetches.
const (
	within     = 15 * time.Second
	maxHeaders = 32 << 10
)

// errNotPublic is why a connection is not made.
var errNotPublic = errors.New("not an address of the public internet")

// NewClient makes a client that speaks https with public addresses only, through no proxy.
// It looks at the address that it connects to and not at a name, so that a name which
// means another address a moment later leads nowhere. It follows so many redirects, to
// https too.
func NewClient(redirects int) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: onlyPublic}
	return &http.Client{
		Timeout: within,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 5 * time.Second,
			MaxResponseHeaderBytes: maxHeaders, MaxIdleConns: 1, IdleConnTimeout: time.Second, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) > redirects:
				return http.ErrUseLastResponse
			case r.URL.Scheme != "https":
				return fmt.Errorf("redirected to %s, which is not https", r.URL.Redacted())
			}
			return nil
		},
	}
}

// onlyPublic refuses connections into networks that a stranger cannot reach himself.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !IsPublic(to.Addr()) {
		return fmt.Errorf("%s: %w", to.Addr(), errNotPublic)
	}
	return nil
}

// special are networks of which net/netip does not say that they are not public, and
// those whose addresses lead to ones of the fourth version.
var special = func() (prefixes []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	return prefixes
}()

// IsPublic says whether an address is one of the public internet.
func IsPublic(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && a.Zone() == "" &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Document is what was fetched.
type Document struct {
	Body   []byte
	Type   string // its media type, without parameters
	Header http.Header
}

// Get fetches a document that is no larger than a limit.
func Get(ctx context.Context, client *http.Client, url, accept string, limit int64) (*Document, error) {
	ctx, cancel := context.WithTimeout(ctx, within) // whatever the client's is
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not https", r.URL.Redacted())
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", "caddy-paywall (+https://github.com/caddy-paywall/caddy-paywall)")
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", r.URL.Redacted(), res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", r.URL.Redacted(), err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", r.URL.Redacted(), limit)
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	return &Document{Body: body, Type: media, Header: res.Header}, nil
}
