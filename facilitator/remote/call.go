package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

const (
	// maxAnswer bounds the answers to /verify and /settle.
	maxAnswer = 64 << 10
	// maxSupported bounds the answer to /supported, which lists much.
	maxSupported = 1 << 20
)

// answer is what came back, complete and within bounds; nothing else is known
// of it yet.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration
	saysWhen   bool // there was a Retry-After, even one of 0
	// correlation is the number of the call in the header, and to where a redirect leads; "" if
	// there is none.
	correlation, to string
}

// ok reports whether the status says success.
func (a answer) ok() bool { return a.status >= 200 && a.status <= 299 }

// redirect reports whether the status points elsewhere.
func (a answer) redirect() bool { return a.status >= 300 && a.status <= 399 }

// callError is a call without an answer.
type callError struct {
	// unsent: not a byte of the request's body has left or ever will.
	unsent bool
	err    error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

func unsent(err error) *callError { return &callError{unsent: true, err: err} }

// call sends one request and reads the whole answer. Its error is a *callError,
// and holds no secret.
func (f *Facilitator) call(ctx context.Context, op string, body io.Reader, size int, limit int64) (answer, error) {
	if f.shared == nil {
		return answer{}, unsent(errNotProvisioned)
	}
	if err := ctx.Err(); err != nil {
		return answer{}, unsent(err)
	}
	req, err := f.newRequest(ctx, op, body, size)
	if err != nil {
		return answer{}, unsent(f.clean(err))
	}
	asked := time.Now()
	resp, err := f.shared.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		once, isOnce := body.(*onceBody)
		return answer{}, &callError{unsent: isOnce && once.seal(), err: f.clean(err)}
	}
	defer resp.Body.Close() //nolint:errcheck // it was read; nothing depends on how it ends
	f.logHeaders(op, resp)
	f.shared.clock.saw(resp.Header, asked, time.Now(), f.logger)
	a := answer{status: resp.StatusCode, correlation: correlation(resp.Header)}
	a.retryAfter, a.saysWhen = retryAfter(resp.Header, time.Now())
	if a.redirect() {
		a.to = f.movedTo(resp, op)
		return a, nil // its body says nothing
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return answer{}, &callError{err: fmt.Errorf("status %d, then the answer broke off: %w", resp.StatusCode, f.clean(err))}
	}
	if int64(len(a.body)) > limit {
		return answer{}, &callError{err: fmt.Errorf("status %d, then an answer longer than %d bytes", resp.StatusCode, limit)}
	}
	return a, nil
}

// newRequest makes the request for op, a POST if there is a body.
func (f *Facilitator) newRequest(ctx context.Context, op string, body io.Reader, size int) (*http.Request, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, f.base.JoinPath(op).String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "caddy-paywall")
	if body != nil {
		req.ContentLength = int64(size)
		req.Header.Set("Content-Type", "application/json")
	}
	if op == "verify" {
		// Not sent (the list is empty), but it tells net/http that a verify may
		// be repeated when an idle connection turns out to be dead.
		req.Header["X-Idempotency-Key"] = nil
	}
	if err := f.auth.authorize(req); err != nil {
		return nil, err
	}
	return req, nil
}

// logHeaders logs what only a header says.
func (f *Facilitator) logHeaders(op string, resp *http.Response) {
	// Only here a facilitator says that an extension, such as a listing in its
	// catalogue, failed.
	if v := resp.Header.Get("Extension-Responses"); v != "" {
		if c := f.logger.Check(zapcore.DebugLevel, "facilitator answers to extensions"); c != nil {
			c.Write(zap.String("call", op), zap.String("extension_responses", f.cleanText(decodeForLog(v))))
		}
	}
}

// onceBody is a request body that can be read once and then never again, and
// that can be sealed as long as nobody began. It has no GetBody, so net/http
// cannot send it a second time; and once sealed, whatever net/http still does in
// the background, no byte of it can leave any more. That makes "not sent" a
// fact instead of a reading of error values.
type onceBody struct {
	r     *bytes.Reader
	state atomic.Int32
}

// The states of a onceBody. It leaves untouched once, in one direction only.
const (
	untouched int32 = iota
	reading
	sealed
)

var errSealed = errors.New("request was given up before it was sent")

func newOnceBody(b []byte) *onceBody { return &onceBody{r: bytes.NewReader(b)} }

// Read implements io.Reader.
func (o *onceBody) Read(p []byte) (int, error) {
	if !o.state.CompareAndSwap(untouched, reading) && o.state.Load() == sealed {
		return 0, errSealed
	}
	return o.r.Read(p)
}

// seal reports whether the body is untouched, and if so keeps it so.
func (o *onceBody) seal() bool { return o.state.CompareAndSwap(untouched, sealed) }

// retryAfter reads Retry-After, in seconds or as a date, and says whether it was
// there.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, facilitator.MaxRetryAfter), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), facilitator.MaxRetryAfter), true
}
