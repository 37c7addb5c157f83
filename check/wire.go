package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// The versions of HTTP.
const (
	http1     = "HTTP/1.1"
	http2Name = "HTTP/2"
	http3Name = "HTTP/3"
)

var errBounded = errors.New("the bound on requests is reached")

// maxBody is how much of an answer is read: enough for a challenge, and to see
// that something came.
const maxBody = 256 << 10

// ask is a request, as it goes over the wire.
type ask struct {
	proto  string
	method string
	path   string // with its query, as it is spelled
	host   string
	header http.Header
	// target replaces the path in the request line of HTTP/1: absolute form.
	target string
	old    bool // HTTP/1.0
	what   string
}

// describe names the request where it is not a plain GET of the target.
func (a ask) describe(t Target) string {
	words := []string{a.what}
	switch {
	case a.path != t.URL.RequestURI():
		words = []string{a.method, a.path, a.what}
	case a.method != http.MethodGet:
		words = []string{a.method, a.what}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

// answer is what came.
type answer struct {
	status    int
	header    http.Header
	body      []byte
	truncated bool
}

// wires are the connections to one origin.
type wires struct {
	scheme, host, address string
	tls                   *tls.Config
	timeout               time.Duration

	spoken     []string // versions of HTTP that have answered
	advertised bool     // HTTP/3 was, by an Alt-Svc header
	silent     bool     // HTTP/3 was tried, and is neither

	absent *answer // to a path that does not exist

	conn   net.Conn // of HTTP/1
	reader *bufio.Reader
	two    *http.Transport
	three  *http3.Transport
}

// unadvertised is how long a server is waited for that does not say that it
// speaks HTTP/3, and probably does not.
const unadvertised = 3 * time.Second

func newWires(u *url.URL, connect string, insecure bool, timeout time.Duration) *wires {
	w := &wires{scheme: u.Scheme, host: u.Host, address: u.Host, timeout: timeout}
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}
		w.address = net.JoinHostPort(u.Hostname(), port)
	}
	if connect != "" {
		w.address = connect
	}
	w.tls = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: insecure} //nolint:gosec // only where the operator says so
	w.two = &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: 256 << 10, TLSClientConfig: w.tls.Clone(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx) },
	}
	w.two.Protocols.SetHTTP2(true)
	w.two.Protocols.SetUnencryptedHTTP2(true)
	w.three = &http3.Transport{
		TLSClientConfig: w.tls.Clone(), DisableCompression: true, MaxResponseHeaderBytes: 256 << 10,
		Dial: func(ctx context.Context, _ string, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
			q = q.Clone()
			q.HandshakeIdleTimeout = timeout
			if !w.advertised {
				q.HandshakeIdleTimeout = min(timeout, unadvertised)
			}
			return quic.DialAddrEarly(ctx, w.address, config, q)
		},
	}
	return w
}

func (w *wires) close() {
	if w.conn != nil {
		_ = w.conn.Close()
	}
	w.two.CloseIdleConnections()
	_ = w.three.Close()
}

func (w *wires) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{Timeout: w.timeout}).DialContext(ctx, "tcp", w.address)
}

// send sends a request without following redirects.
func (w *wires) send(ctx context.Context, a ask) (*answer, error) {
	if a.proto == http1 {
		r, err := w.one(ctx, a)
		if err != nil && w.conn == nil && ctx.Err() == nil {
			r, err = w.one(ctx, a) // the server had closed the connection
		}
		return r, err
	}
	req, err := w.request(ctx, a)
	if err != nil {
		return nil, err
	}
	var trip http.RoundTripper = w.two
	if a.proto == http3Name {
		trip = w.three
	}
	res, err := trip.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if a.proto == http2Name && res.ProtoMajor != 2 {
		_ = res.Body.Close()
		return nil, errors.New("the server does not speak HTTP/2")
	}
	return read(res)
}

// one sends a request of HTTP/1 as it is spelled, which net/http would not.
func (w *wires) one(ctx context.Context, a ask) (*answer, error) {
	if w.conn == nil {
		conn, err := w.dial(ctx)
		if err != nil {
			return nil, err
		}
		if w.scheme == "https" {
			secure := tls.Client(conn, w.tls)
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close()
				return nil, err
			}
			conn = secure
		}
		w.conn, w.reader = conn, bufio.NewReader(conn)
	}
	drop := func(err error) (*answer, error) {
		_ = w.conn.Close()
		w.conn = nil
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = w.conn.SetDeadline(deadline)
	}
	version, target := "1.1", a.path
	if a.old {
		version = "1.0"
	}
	if a.target != "" {
		target = a.target
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/%s\r\nHost: %s\r\nUser-Agent: %s\r\n", a.method, target, version, a.host, userAgent(a.header))
	for name, values := range a.header {
		if name != "User-Agent" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, strings.Join(values, ", "))
		}
	}
	if !isSafe(a.method) {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(w.conn, b.String()); err != nil {
		return drop(err)
	}
	method := a.method
	if method == http.MethodConnect {
		method = http.MethodGet
	}
	res, err := http.ReadResponse(w.reader, &http.Request{Method: method})
	if err != nil {
		return drop(err)
	}
	answer, err := read(res)
	if err != nil {
		return drop(err)
	}
	if res.Close || answer.truncated || res.StatusCode < 200 || a.old {
		_, _ = drop(nil)
	}
	return answer, nil
}

// errSpelling: a version of HTTP has no way to write the path so.
var errSpelling = errors.New("this path cannot be sent so")

// refused reports whether a server of HTTP/2 or 3 has refused a request as
// malformed, where one of HTTP/1 answers 400.
func refused(err error) bool {
	if two, ok := errors.AsType[http2.StreamError](err); ok {
		return two.Code == http2.ErrCodeProtocol
	}
	three, ok := errors.AsType[*http3.Error](err)
	return ok && three.ErrorCode == http3.ErrCodeMessageError
}

// request is a request of HTTP/2 or 3.
func (w *wires) request(ctx context.Context, a ask) (*http.Request, error) {
	u := &url.URL{Scheme: w.scheme, Host: w.host, Opaque: a.path}
	if strings.HasPrefix(a.path, "//") {
		path, query, _ := strings.Cut(a.path, "?")
		if u.Opaque, u.Path, u.RawQuery = "", path, query; u.EscapedPath() != path {
			return nil, errSpelling
		}
	}
	if _, err := url.PathUnescape(a.path); err != nil || strings.ContainsAny(a.path, " \t\r\n\x00") {
		return nil, errSpelling // servers refuse the stream, and the client tries again
	}
	header := a.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("User-Agent", userAgent(a.header))
	return (&http.Request{Method: a.method, URL: u, Host: a.host, Header: header}).WithContext(ctx), nil
}

func read(res *http.Response) (*answer, error) {
	defer res.Body.Close() //nolint:errcheck // it was only read
	if res.StatusCode == http.StatusSwitchingProtocols {
		return &answer{status: res.StatusCode, header: res.Header, truncated: true}, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil && len(body) == 0 {
		return nil, err
	}
	return &answer{status: res.StatusCode, header: res.Header, body: body, truncated: len(body) > maxBody || err != nil}, nil
}

func userAgent(header http.Header) string {
	if agent := header.Get("User-Agent"); agent != "" {
		return agent
	}
	return "caddy-paywall-check"
}

// isSafe reports whether a method asks only.
func isSafe(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return false
	}
	return true
}
