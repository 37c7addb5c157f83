package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// connectTimeout bounds dialling, and once more the TLS handshake.
	connectTimeout = 3 * time.Second
	// idleConns is how many idle connections are kept. Settles of busy sites run
	// side by side, and each of them that finds no connection pays for a
	// handshake.
	idleConns = 128
	// idleTimeout is below the idle time-outs of common proxies (60 s), so that
	// we rather than they close an idle connection: a request written into a
	// connection that the other side is closing is a settle with an unknown
	// outcome.
	idleTimeout = 45 * time.Second
	// maxHeaderBytes bounds the headers of an answer.
	maxHeaderBytes = 64 << 10
)

// pool keeps what facilitators of the same config share, across reloads.
var pool = caddy.NewUsagePool()

// shared is what outlives a reload: open connections, and what the facilitator
// last said it supports.
type shared struct {
	client    *http.Client
	transport *http.Transport
	supported atomic.Pointer[x402.Supported]
	clock     clock
}

// Destruct closes what is idle. Requests of an earlier config that are still
// under way end undisturbed.
func (s *shared) Destruct() error {
	s.transport.CloseIdleConnections()
	return nil
}

// open takes the shared part out of the pool, or makes it.
func (f *Facilitator) open() error {
	key, err := f.poolKey()
	if err != nil {
		return err
	}
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return err
	}
	f.key, f.shared = key, v.(*shared)
	return nil
}

// poolKey tells configs apart, by the resolved credentials too: a new key may
// see other kinds. It is a hash, since keys of a pool can end up in a dump.
func (f *Facilitator) poolKey() (string, error) {
	auth := Auth{}
	if f.Auth != nil {
		auth = Auth{Type: f.Auth.Type, Name: f.Auth.Name, KeyID: f.Auth.KeyID}
	}
	text, err := json.Marshal([]any{f.base.String(), auth, f.auth.secrets()})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func newShared() *shared {
	t := newTransport()
	return &shared{
		transport: t,
		client: &http.Client{
			Transport: t,
			// The answer to a redirect is for the caller to judge, who takes it for
			// none: whoever can redirect would receive the credentials.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func newTransport() *http.Transport {
	// HTTP/1.1 only: one connection carries one request, so that a connection
	// that breaks leaves the outcome of one settle unknown and not of all.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		Protocols:              protocols,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // answers are small, and bombs are not
	}
}
