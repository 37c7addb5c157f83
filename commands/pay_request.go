package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// maxStdin bounds a body from stdin, which is kept in memory because it is sent
// at least twice.
const maxStdin = 64 << 20

// request makes the request that the flags describe.
func (p *pay) request(ctx context.Context, target string) (*http.Request, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("write the whole URL, with https:// or http://")
	}
	method := p.method
	switch {
	case method == "" && p.withData:
		method = http.MethodPost
	case method == "":
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "caddy-paywall")
	req.Header.Set("Accept", "*/*")
	if p.withData {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
		if err := p.setBody(req); err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
	}
	for _, line := range p.headers {
		if err := setHeader(req, line); err != nil {
			return nil, fmt.Errorf("--header: %w", err)
		}
	}
	return req, nil
}

// setBody sets a body that can be sent again. A file is read anew each time.
func (p *pay) setBody(req *http.Request) error {
	name, isFile := strings.CutPrefix(p.data, "@")
	switch {
	case !isFile:
		setBytes(req, []byte(p.data))
		return nil
	case name == "-":
		b, err := io.ReadAll(io.LimitReader(p.in, maxStdin+1))
		if err != nil {
			return fmt.Errorf("reading stdin: %w", err)
		}
		if len(b) > maxStdin {
			return errors.New("there is more than 64 MiB on stdin; put it into a file")
		}
		setBytes(req, b)
		return nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file, so it cannot be sent twice", name)
	}
	req.GetBody = func() (io.ReadCloser, error) { return os.Open(name) } //nolint:gosec // the user's own file
	req.Body, err = req.GetBody()
	req.ContentLength = info.Size()
	if info.Size() == 0 { // else net/http takes 0 for unknown
		setBytes(req, nil)
	}
	return err
}

func setBytes(req *http.Request, b []byte) {
	req.GetBody = func() (io.ReadCloser, error) {
		if len(b) == 0 {
			return http.NoBody, nil
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	req.Body, _ = req.GetBody()
	req.ContentLength = int64(len(b))
}

// setHeader reads a header line. The first of a name replaces our own.
func setHeader(req *http.Request, line string) error {
	name, value, found := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !found || !isToken(name) || strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("%.40q is not of the form 'Name: value'", name) // a value may be secret
	}
	switch name = http.CanonicalHeaderKey(name); name {
	case x402.HeaderPaymentSignature, x402.HeaderXPayment:
		return fmt.Errorf("%s is what this command is for", name)
	case "Host":
		req.Host = value
	case "User-Agent", "Accept", "Content-Type":
		req.Header.Set(name, value)
	default:
		req.Header.Add(name, value)
	}
	return nil
}

// isToken reports whether s can be the name of a header (RFC 9110).
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) < 0
}

// checkNetworks finds typing errors, which would look like an unwilling seller.
func checkNetworks(names []string) error {
	for _, name := range names {
		if _, ok := money.FindNetwork(name); !ok {
			return fmt.Errorf("--network: there is no network %q", name)
		}
	}
	return nil
}
