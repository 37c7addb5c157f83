package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// minPause keeps a server that says "at once" from being hammered.
	minPause = 250 * time.Millisecond
	// maxPause is the longest pause that we choose ourselves.
	maxPause = 15 * time.Second
)

// Resend says why, and after which pause, the same payment is sent again.
type Resend struct {
	// Status and Code are of the answer; 0 and "" if there was none.
	Status int
	Code   string
	// Err is why there was no answer.
	Err error
	// Pause is how long we wait.
	Pause time.Duration
}

// Send sends a signed payment, and sends the same one again as long as the
// seller asks for that and Wait lasts: on 503, on 409 while an earlier copy is
// in flight, and after a lost connection. Do has called it already; call it
// again for a payment whose outcome is pending, or whose goods broke off.
func (c *Client) Send(ctx context.Context, p *Payment) (*Result, error) {
	if p.signed == nil {
		return nil, errors.New("the payment is not signed")
	}
	result := &Result{Challenge: p.Challenge, Payment: p}
	deadline, left := c.now().Add(c.wait()), c.wait()
	for own := time.Second; ; own = min(2*own, maxPause) {
		err := c.sendOnce(ctx, p, result, c.patience(deadline))
		again, pause := resend(ctx, result, err, c.now())
		if pause == 0 {
			pause = own
		}
		pause = max(pause, minPause)
		// left counts pauses alone, for clocks that stand still.
		left -= pause
		if !again || left < 0 || c.now().Add(pause).After(deadline) {
			return result.end(err)
		}
		if c.OnResend != nil {
			c.OnResend(result.resend(err, pause))
		}
		discard(result.Response)
		if err := c.sleep(ctx, pause); err != nil {
			result.Response = nil
			return result.end(err)
		}
	}
}

// end is the result of the last try.
func (r *Result) end(err error) (*Result, error) {
	if r.Response != nil {
		r.guard.handOut()
	}
	if err == nil {
		return r, nil
	}
	switch {
	case r.Paid():
		r.Outcome = Failed
	case r.seen:
		r.Outcome = Pending
	default: // a payment that never left is no payment
		r.Outcome, r.Payment = Unpaid, nil
	}
	return r, fmt.Errorf("sending the payment: %w", err)
}

func (r *Result) resend(err error, pause time.Duration) Resend {
	again := Resend{Err: err, Pause: pause}
	if r.Response != nil {
		again.Status, again.Code = r.Response.StatusCode, r.Code
	}
	return again
}

// sendOnce sends the payment, and reads what the answer says into the result.
// Patience bounds the time until there is one.
func (c *Client) sendOnce(ctx context.Context, p *Payment, result *Result, patience time.Duration) error {
	earlier := result.Receipt
	result.Response, result.Receipt, result.Code, result.Message = nil, nil, "", ""
	req, err := p.newRequest(ctx)
	if err != nil {
		return &unsentError{err}
	}
	resp, g, err := c.exchange(req, patience, c.followPaid(result)) //nolint:bodyclose // the caller closes it
	if err != nil {
		result.seen = result.seen || mayHaveLeft(err)
		result.unknown = result.unknown || result.seen
		if result.Receipt == nil {
			result.Receipt = earlier
		}
		return err
	}
	result.seen = true
	result.guard = g
	result.read(resp)
	return nil
}

// newRequest is the request that was refused, with the payment.
func (p *Payment) newRequest(ctx context.Context) (*http.Request, error) {
	req := p.request.Clone(ctx)
	req.Response = nil
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("reading the request's body again: %w", err)
		}
		req.Body = body
	}
	req.Header.Set(p.signed.name, p.signed.value)
	return req, nil
}

// unsentError is a failure on our side of the wire.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// mayHaveLeft reports whether the seller may have seen the payment although
// there was no answer. When in doubt, it has.
func mayHaveLeft(err error) bool {
	if _, ours := errors.AsType[*unsentError](err); ours {
		return false
	}
	if _, stranger := errors.AsType[*tls.CertificateVerificationError](err); stranger {
		return false
	}
	op, ok := errors.AsType[*net.OpError](err)
	return !ok || op.Op != "dial"
}

// resend decides whether the same payment is worth sending again, and when: 0
// leaves that to us. A 402 never is, because the seller has decided.
func resend(ctx context.Context, r *Result, err error, now time.Time) (again bool, after time.Duration) {
	if ctx.Err() != nil {
		return false, 0
	}
	if err != nil {
		_, ours := errors.AsType[*unsentError](err)
		_, stranger := errors.AsType[*tls.CertificateVerificationError](err)
		return !ours && !stranger && !r.Paid(), 0
	}
	after, asked := retryAfter(r.Response.Header, now)
	switch r.Response.StatusCode {
	case http.StatusServiceUnavailable:
		return asked || r.Code == string(x402.CodeSettlementPending), after
	case http.StatusConflict:
		return r.Code == string(x402.CodePaymentInFlight), after
	case http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		return asked, after
	}
	return false, 0
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	const most = 24 * 3600 // beyond every Wait; a product stays far below overflow
	if seconds, err := strconv.ParseUint(v, 10, 32); err == nil {
		return time.Duration(min(seconds, most)) * time.Second, true
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

func (c *Client) wait() time.Duration {
	switch {
	case c.Wait < 0:
		return 0
	case c.Wait == 0:
		return DefaultWait
	}
	return c.Wait
}

// patience is how long a seller may take to answer a payment: as long as Wait
// lasts, but no longer than Timeout.
func (c *Client) patience(deadline time.Time) time.Duration {
	timeout := bound(c.Timeout, DefaultTimeout)
	if c.Wait < 0 {
		return timeout
	}
	return min(timeout, max(deadline.Sub(c.now()), minTry))
}

func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	if c.pause != nil {
		return c.pause(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discard frees an answer that is not handed out, and its connection.
func discard(resp *http.Response) {
	if resp != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxBodyBytes)
		_ = resp.Body.Close()
	}
}
