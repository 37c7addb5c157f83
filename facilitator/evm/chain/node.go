package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/rpc"
)

const (
	// callTimeout bounds one round trip to a node, so that a node that hangs
	// leaves time to ask the next one.
	callTimeout = 5 * time.Second
	// connectTimeout bounds dialling, and once more the TLS handshake.
	connectTimeout = 3 * time.Second
	// maxCalls bounds how many calls to one node are under way at once: in a rush
	// thousands wait for blocks.
	maxCalls = 64
	// maxAnswer bounds what a node can make us read.
	maxAnswer = 4 << 20
	// noBatchFor is how long a node that refused a batch is asked one by one. One bad
	// answer of a good node, or of what stands before it, is no property of the node.
	noBatchFor = time.Minute
)

// Client is what we use of an *rpc.Client of go-ethereum.
type Client interface {
	CallContext(ctx context.Context, result any, method string, args ...any) error
	BatchCallContext(ctx context.Context, b []rpc.BatchElem) error
	Close()
}

// Dialer makes a client for the URL of a node. It may connect when it is first used.
type Dialer func(ctx context.Context, u *url.URL) (Client, error)

// Node is one JSON-RPC endpoint. It is safe for concurrent use.
type Node struct {
	// Host is what logs call the node: the rest of its URL may be an API key.
	Host    string
	secrets []string
	url     *url.URL
	dial    Dialer
	now     func() time.Time

	slots chan struct{} // holds one token for each call under way

	mu      sync.Mutex
	client  Client
	noBatch time.Time // when it last refused a batch
}

func newNode(u *url.URL, d Dialer, now func() time.Time) *Node {
	return &Node{Host: u.Host, secrets: secretsOf(u), url: u, dial: d, now: now, slots: make(chan struct{}, maxCalls)}
}

// connect returns the client, and makes it first if there is none.
func (n *Node) connect(ctx context.Context) (Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client == nil {
		c, err := n.dial(ctx, n.url)
		if err != nil {
			return nil, n.clean(err)
		}
		n.client = c
	}
	return n.client, nil
}

// close drops the connection; the next call makes a new one.
func (n *Node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		n.client.Close()
		n.client = nil
	}
}

// enter waits for room among the calls under way; leave makes room.
func (n *Node) enter(ctx context.Context) (leave func(), err error) {
	select {
	case n.slots <- struct{}{}:
		return func() { <-n.slots }, nil
	case <-ctx.Done():
		return nil, n.clean(errNoRoom)
	}
}

// errNoRoom is for a call that was not made.
var errNoRoom = errors.New("too many calls to it are under way")

// Call makes one call, and puts its answer where result points. The error is one that
// Answered and Reverted can tell apart; its text is fit for the log.
func (n *Node) Call(ctx context.Context, result any, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, leave, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return n.clean(c.CallContext(ctx, result, method, args...))
}

// begin takes a place among the calls under way, and connects. Whoever gets no error must
// call leave.
func (n *Node) begin(ctx context.Context) (c Client, leave func(), err error) {
	if leave, err = n.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer func() {
		if c == nil { // also after a panic
			leave()
		}
	}()
	c, err = n.connect(ctx)
	return c, leave, err
}

// Ask makes several calls in one round trip, or one after the other at a node that takes no
// batches. An error of a single call is in its element; the one returned is for all of them.
func (n *Node) Ask(ctx context.Context, calls Batch) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, leave, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if !n.takesNoBatch() {
		err = c.BatchCallContext(ctx, calls)
		if !refusesBatch(err) {
			n.cleanAll(calls)
			return n.clean(err)
		}
		n.mu.Lock()
		n.noBatch = n.now()
		n.mu.Unlock()
	}
	for i := range calls {
		e := &calls[i]
		if e.Error = c.CallContext(ctx, e.Result, e.Method, e.Args...); e.Error != nil && ctx.Err() != nil {
			return n.clean(e.Error)
		}
	}
	n.cleanAll(calls)
	return nil
}

func (n *Node) takesNoBatch() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.noBatch.IsZero() && n.now().Sub(n.noBatch) < noBatchFor
}

func (n *Node) cleanAll(calls Batch) {
	for i := range calls {
		calls[i].Error = n.clean(calls[i].Error)
	}
}

// refusesBatch reports whether a node answered that it takes single calls only:
// with one object instead of an array, or with a status that says so.
func refusesBatch(err error) bool {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return wrong.Value == "object"
	}
	status, ok := errors.AsType[rpc.HTTPError](err)
	return ok && (status.StatusCode == http.StatusBadRequest || status.StatusCode == http.StatusRequestEntityTooLarge)
}

// Dial is the Dialer for real nodes: over HTTP, or a WebSocket if the URL says so. It follows
// no redirects and bounds the size of answers.
func Dial(ctx context.Context, u *url.URL) (Client, error) {
	client := &http.Client{
		Transport: &bounded{newTransport()},
		// The URL may hold an API key, and the body a payment.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c, err := rpc.DialOptions(ctx, u.String(), rpc.WithHTTPClient(client), rpc.WithWebsocketMessageSizeLimit(maxAnswer))
	if err != nil {
		return nil, err
	}
	return &httpCloser{Client: c, http: client}, nil
}

// httpCloser closes idle connections too, which rpc.Client leaves to its HTTP
// client.
type httpCloser struct {
	*rpc.Client
	http *http.Client
}

// Close ends the client.
func (c *httpCloser) Close() {
	c.Client.Close()
	c.http.CloseIdleConnections()
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        45 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // answers are small, and bombs are not
	}
}

// bounded limits the size of answers, which rpc.Client reads to their end.
type bounded struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// errTooLong is for an answer above maxAnswer.
var errTooLong = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
