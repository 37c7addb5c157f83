package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// DefaultTimeout is how long a seller may be silent.
	DefaultTimeout = time.Minute
	// DefaultMaxTime is how long the answer of a seller may take that drips.
	DefaultMaxTime = time.Hour
	// minRate is how many bytes a second make a stream that flows. Speech and
	// the tokens of a language model come faster.
	minRate = 1 << 10
	// minTry is the least time that a seller has to answer a payment, however
	// little of Wait is left.
	minTry = 10 * time.Second
	// forever is longer than anybody waits, and far from overflowing.
	forever = time.Duration(1) << 62
)

// Errors of Do, of Send and of reading the body of an answer.
var (
	// ErrSilent: nothing came from the seller for as long as Timeout, or it took
	// that long over what is small.
	ErrSilent = errors.New("the seller is silent for too long")
	// ErrSlow: the seller drips; see MaxTime.
	ErrSlow = errors.New("the seller sends too slowly for too long")
)

// guard ends an exchange with a seller who keeps silent, or who drips to hold us.
// Everything up to the end of the header is one wait, which only pieces of our
// own body prolong, because a seller could drip headers for ever. So is what we
// read for ourselves: challenges, refusals, what is thrown away. In a body that
// is handed out, each piece is a wait. The time in which the caller does not read
// is nobody's fault.
type guard struct {
	next    http.RoundTripper
	ctx     context.Context //nolint:containedctx // it lives as long as the exchange
	cancel  context.CancelCauseFunc
	silence time.Duration // between pieces of a body that is handed out
	head    time.Duration // before that
	most    time.Duration // all waits together, beside what the bytes earn

	mu     sync.Mutex
	timer  *time.Timer
	why    error // that the timer would end the exchange for
	since  time.Time
	waited time.Duration
	bytes  int64
	handed bool
}

// exchange sends a request, and follows redirects, under a guard. Head bounds
// the time until there is an answer.
func (c *Client) exchange(req *http.Request, head time.Duration, redirect func(*http.Request, []*http.Request) error) (*http.Response, *guard, error) {
	g := &guard{next: c.transport(), silence: bound(c.Timeout, DefaultTimeout), head: head, most: bound(c.MaxTime, DefaultMaxTime)}
	g.ctx, g.cancel = context.WithCancelCause(req.Context())
	g.timer = time.AfterFunc(forever, g.fire)
	g.wait(head)
	h := http.Client{Transport: g, CheckRedirect: redirect}
	resp, err := h.Do(req.WithContext(g.ctx))
	if err != nil {
		err = g.explain(err)
		g.end()
		return nil, nil, hideUser(err)
	}
	if _, twoWay := resp.Body.(io.Writer); twoWay {
		g.rest() // after 101 nothing is a question or an answer any more
		return resp, g, nil
	}
	resp.Body = &guardedBody{resp.Body, g}
	return resp, g, nil
}

// bound is a duration of the Client: 0 means usual, less than 0 none.
func bound(d, usual time.Duration) time.Duration {
	switch {
	case d < 0:
		return forever
	case d == 0:
		return usual
	}
	return d
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := req
	if req.Body != nil && req.Body != http.NoBody {
		sent = req.Clone(req.Context())
		sent.Body = &upload{req.Body, g}
		if req.GetBody != nil {
			sent.GetBody = func() (io.ReadCloser, error) {
				body, err := req.GetBody()
				if err != nil {
					return nil, err
				}
				return &upload{body, g}, nil
			}
		}
	}
	resp, err := g.next.RoundTrip(sent)
	if resp != nil {
		resp.Request = req // of which the payment is made
	}
	return resp, err
}

// wait begins to wait for as long as most.
func (g *guard) wait(most time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begin(most)
}

func (g *guard) begin(most time.Duration) {
	g.why = ErrSilent
	if left := g.most + time.Duration(g.bytes/minRate)*time.Second - g.waited; left < most {
		most, g.why = max(left, 0), ErrSlow
	}
	g.since = time.Now()
	g.timer.Reset(most)
}

// sent notes a piece of our own body.
func (g *guard) sent(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > 0 && !g.handed && !g.since.IsZero() {
		g.pause(n)
		g.begin(g.head)
	}
}

// rest stops waiting.
func (g *guard) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause(0)
}

func (g *guard) pause(n int) {
	g.bytes += int64(n)
	if !g.since.IsZero() {
		g.waited += time.Since(g.since)
	}
	g.since = time.Time{}
	g.timer.Stop()
}

// handOut lets the body take as long as it flows.
func (g *guard) handOut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handed = true
	g.pause(0)
}

// fire ends the exchange, if we still wait.
func (g *guard) fire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.since.IsZero() {
		g.cancel(g.why)
	}
}

// end frees what the exchange holds.
func (g *guard) end() {
	g.rest()
	g.cancel(nil)
}

// explain puts the reason why we ended the exchange in place of its error.
func (g *guard) explain(err error) error {
	if cause := context.Cause(g.ctx); errors.Is(cause, ErrSilent) || errors.Is(cause, ErrSlow) {
		return cause
	}
	return err
}

// guardedBody is the body of an answer.
type guardedBody struct {
	io.ReadCloser
	guard *guard
}

// Read implements io.Reader.
func (b *guardedBody) Read(p []byte) (int, error) {
	g := b.guard
	if g.handedOut() {
		g.wait(g.silence)
	}
	n, err := b.ReadCloser.Read(p)
	if g.handedOut() || err != nil {
		g.mu.Lock()
		g.pause(n)
		g.mu.Unlock()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = g.explain(err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *guardedBody) Close() error {
	defer b.guard.end()
	return b.ReadCloser.Close()
}

func (g *guard) handedOut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handed
}

// upload is the body of a request.
type upload struct {
	io.ReadCloser
	guard *guard
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	u.guard.sent(n)
	return n, err
}
