package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Answer is an answer, read to its end.
type Answer struct {
	*http.Response
	Text string // the body
	Err  error
}

func (a Answer) String() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	return fmt.Sprintf("%s %s\n%v\n%.1000q\ntrailers %v", a.Proto, a.Status, a.Header, a.Text, a.Trailer)
}

// Is says whether there was an answer, and with which status: right after a
// reload a connection may be reset.
func (a Answer) Is(status int) bool { return a.Err == nil && a.StatusCode == status }

// Request is a request to the gate, with pairs of header names and values.
func (w *World) Request(method, path string, header ...string) *http.Request {
	w.T.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.URL+path, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// Do sends a request and reads the answer to its end.
func (w *World) Do(r *http.Request) Answer {
	w.T.Helper()
	res, err := w.HTTP.Do(r)
	if err != nil {
		return Answer{Response: &http.Response{}, Err: err} // of status 0, for those who look at that alone
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return Answer{Response: res, Text: string(body), Err: err}
}

// Get asks for a path, with pairs of header names and values.
func (w *World) Get(path string, header ...string) Answer {
	w.T.Helper()
	return w.Do(w.Request(http.MethodGet, path, header...))
}

// Challenge asks without paying and returns the decoded challenge.
func (w *World) Challenge(method, path string) x402.Challenge {
	w.T.Helper()
	res := w.Do(w.Request(method, path))
	for range 200 {
		if res.Err != nil || !strings.Contains(res.Text, "no_facilitator") {
			break
		}
		// The facilitator has answered, but nobody has read it yet.
		time.Sleep(10 * time.Millisecond)
		res = w.Do(w.Request(method, path))
	}
	if res.Err != nil || res.StatusCode != http.StatusPaymentRequired {
		w.T.Fatalf("unpaid %s %s: want 402, got %v %v", method, path, res.Response, res.Err)
	}
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		w.T.Fatalf("challenge: %v", err)
	}
	return c
}

// Sign makes a payment for a path.
func (w *World) Sign(method, path string, p *Payer) *Payment {
	w.T.Helper()
	c := w.Challenge(method, path)
	return p.Sign(w.T, c.Accepts[0], time.Now())
}

// Pay asks for the price and pays it.
func (w *World) Pay(method, path string) Answer {
	w.T.Helper()
	return w.Do(w.Request(method, path, "PAYMENT-SIGNATURE", w.Sign(method, path, NewPayer(w.T)).V2(w.T)))
}

// PayWith asks with a PAYMENT-SIGNATURE.
func (w *World) PayWith(method, path, header string) Answer {
	w.T.Helper()
	return w.Do(w.Request(method, path, "PAYMENT-SIGNATURE", header))
}

// PermitFor makes a payment for a path.
func (w *World) PermitFor(method, path string, p *Payer) *Permit {
	w.T.Helper()
	return p.Permit(w.T, w.Challenge(method, path).Accepts[0])
}

// SendBody sends one request with a payment and a body.
func (w *World) SendBody(ctx context.Context, method, path, payment, body string, header ...string) Answer {
	r, err := http.NewRequestWithContext(ctx, method, w.URL+path, strings.NewReader(body))
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.Do(r)
}

// Post sends a POST with a fresh payment, and hangs up after the header if told to.
func (w *World) Post(p *Payer, path, body string, hangUp bool) Answer {
	w.T.Helper()
	return w.PostPaid(path, body, p.Sign(w.T, w.Challenge(http.MethodPost, path).Accepts[0], time.Now()).V2(w.T), hangUp)
}

// PostPaid is Post with a payment that is there.
func (w *World) PostPaid(path, body, payment string, hangUp bool) Answer {
	w.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+path, strings.NewReader(body))
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	if !hangUp {
		return w.Do(r)
	}
	res, err := w.HTTP.Do(r)
	if err != nil {
		return Answer{Err: err}
	}
	cancel()
	res.Body.Close()
	return Answer{Response: res}
}

// OrderOf is a request with a body, of which nobody knows the length if it is chunked.
func (w *World) OrderOf(ctx context.Context, method, path, payment, body string, chunked bool) *http.Request {
	var reader io.Reader = strings.NewReader(body)
	if chunked {
		reader = io.MultiReader(reader)
	}
	r, err := http.NewRequestWithContext(ctx, method, w.URL+path, reader)
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	return r
}

// Again sends a payment once more, as soon as the request before it has let go
// of it: the last byte of an answer may arrive before that.
func (w *World) Again(send func() Answer) (res Answer) {
	w.T.Helper()
	w.Until(func() bool {
		res = send()
		return !strings.Contains(res.Text, string(x402.CodePaymentInFlight))
	})
	return res
}

// Reconnecting sends again while its connection ends without an answer. A reload
// of Caddy closes the old listener, and with it the connections that wait in its
// queue, gate or no gate; whoever meets that connects again.
func (w *World) Reconnecting(send func() Answer) (res Answer) {
	w.T.Helper()
	w.Until(func() bool {
		res = send()
		return !errors.Is(res.Err, syscall.ECONNRESET) && !errors.Is(res.Err, io.EOF)
	})
	return res
}

// Expect wants an answer with a status and, unless it is "", a code of the gate.
func (w *World) Expect(res Answer, status int, code string) {
	w.T.Helper()
	if res.Err != nil {
		w.T.Fatalf("want %d %s, got error %v", status, code, res.Err)
	}
	if res.StatusCode != status {
		w.T.Fatalf("want %d %s, got %d %s", status, code, res.StatusCode, res.Text)
	}
	if code == "" {
		return
	}
	var body struct {
		Error string `json:"error"`
	}
	err := json.Unmarshal([]byte(res.Text), &body)
	if header := res.Header.Get(x402.HeaderPaymentRequired); header != "" {
		var c x402.Challenge
		c, err = x402.DecodeChallenge(header)
		body.Error = c.Error
	}
	if err != nil || body.Error != code {
		w.T.Fatalf("want code %q, got %q (%v)", code, res.Text, err)
	}
}

// ExpectBusy wants a refusal that asks to come back.
func (w *World) ExpectBusy(res Answer, status int, code string) {
	w.T.Helper()
	w.Expect(res, status, code)
	if res.Header.Get("Retry-After") == "" {
		w.T.Fatalf("%s without Retry-After", code)
	}
	if strings.Contains(res.Header.Get("Payment-Required"), "e") {
		w.T.Fatal("who is to wait is asked to sign anew")
	}
}

// Counts compares what the upstream and the facilitator have seen.
func (w *World) Counts(upstream, verified, settled int64) {
	w.T.Helper()
	if u, v, s := w.Upstream.Hits.Load(), w.Facilitator.Verified.Load(), w.Facilitator.Settled.Load(); u != upstream || v != verified || s != settled {
		w.T.Fatalf("want %d upstream, %d verify, %d settle; got %d, %d, %d", upstream, verified, settled, u, v, s)
	}
}

// ReceiptOf reads the receipt of an answer.
func ReceiptOf(t testing.TB, res Answer) x402.Receipt {
	t.Helper()
	r, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
	if err != nil {
		t.Fatalf("receipt %q: %v", res.Header.Get(x402.HeaderPaymentResponse), err)
	}
	return r
}
