package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

func hdr(name, value string) []string { return []string{name, value} }

var (
	pendingReceipt = hdr(x402.HeaderPaymentResponse, receipt(false, "settlement_pending"))
	paidReceipt    = hdr(x402.HeaderPaymentResponse, receipt(true, ""))
	failedReceipt  = hdr(x402.HeaderPaymentResponse, receipt(false, "settlement_failed"))
	// What an official server says of a transaction that was reverted: whoever saw
	// it can send what was signed again.
	revertedReceipt = hdr(x402.HeaderPaymentResponse, x402.Receipt{
		Network: "eip155:84532", Payer: payer, ErrorReason: "invalid_transaction_state", Transaction: "0x" + strings.Repeat("ab", 32),
	}.Encode())
	soon = hdr("Retry-After", "5")
)

func with(headers ...[]string) []string {
	var all []string
	for _, h := range headers {
		all = append(all, h...)
	}
	return all
}

// TestAnswers: whatever the seller answers, one payment is signed, and every
// copy of it is the same, byte for byte.
func TestAnswers(t *testing.T) {
	unavailable := http.StatusServiceUnavailable
	pending := refuses(unavailable, x402.CodeSettlementPending, with(soon, pendingReceipt)...)
	tests := map[string]struct {
		answers []http.HandlerFunc
		outcome Outcome
		code    string
		paid    bool
		sent    int
		pauses  []time.Duration
		fails   bool // Do returns an error too
	}{
		"delivered":                  {answers: []http.HandlerFunc{delivers}, outcome: Delivered, paid: true, sent: 1},
		"delivered without receipt":  {answers: []http.HandlerFunc{refuses(200, "")}, outcome: Delivered, sent: 1},
		"delivered, broken receipt":  {answers: []http.HandlerFunc{refuses(200, "", hdr(x402.HeaderPaymentResponse, "%")...)}, outcome: Delivered, sent: 1},
		"delivered, version 1 name":  {answers: []http.HandlerFunc{refuses(200, "", hdr(x402.HeaderXPaymentResponse, receipt(true, ""))...)}, outcome: Delivered, paid: true, sent: 1},
		"pending, then delivered":    {answers: []http.HandlerFunc{pending, delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{5 * time.Second}},
		"pending without a time":     {answers: []http.HandlerFunc{refuses(unavailable, x402.CodeSettlementPending), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{time.Second}},
		"pending by receipt alone":   {answers: []http.HandlerFunc{refuses(unavailable, "", pendingReceipt...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{time.Second}},
		"unavailable, with a time":   {answers: []http.HandlerFunc{refuses(unavailable, x402.CodeFacilitatorUnavailable, soon...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{5 * time.Second}},
		"unavailable without a time": {answers: []http.HandlerFunc{refuses(unavailable, "out_of_order")}, outcome: Pending, code: "out_of_order", sent: 1},
		"at once is a moment":        {answers: []http.HandlerFunc{refuses(unavailable, "", hdr("Retry-After", "0")...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{time.Second}},
		"a date":                     {answers: []http.HandlerFunc{refuses(unavailable, "", hdr("Retry-After", "Thu, 01 Jan 2026 00:00:07 GMT")...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{7 * time.Second}},
		"asks for more than we wait": {answers: []http.HandlerFunc{refuses(unavailable, x402.CodeSettlementPending, hdr("Retry-After", "121")...)}, outcome: Pending, code: "settlement_pending", sent: 1},
		"asks for a century":         {answers: []http.HandlerFunc{refuses(unavailable, x402.CodeSettlementPending, hdr("Retry-After", "4294967295")...)}, outcome: Pending, code: "settlement_pending", sent: 1},
		"pending for ever":           {answers: []http.HandlerFunc{refuses(unavailable, x402.CodeSettlementPending, hdr("Retry-After", "50")...)}, outcome: Pending, code: "settlement_pending", sent: 3, pauses: []time.Duration{50 * time.Second, 50 * time.Second}},
		"in flight, then delivered":  {answers: []http.HandlerFunc{refuses(409, x402.CodePaymentInFlight, hdr("Retry-After", "2")...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{2 * time.Second}},
		"another conflict":           {answers: []http.HandlerFunc{refuses(409, "payment_bought_something_else", soon...)}, outcome: Failed, code: "payment_bought_something_else", sent: 1},
		"delivery unconfirmed":       {answers: []http.HandlerFunc{refuses(409, x402.CodeDeliveryUnconfirmed, paidReceipt...)}, outcome: Failed, code: "delivery_unconfirmed", paid: true, sent: 1},
		"refused":                    {answers: []http.HandlerFunc{refuses(402, x402.CodeSettlementFailed, failedReceipt...)}, outcome: Refused, code: "settlement_failed", sent: 1},
		"402, and still pending":     {answers: []http.HandlerFunc{refuses(402, "", pendingReceipt...)}, outcome: Pending, code: "settlement_pending", sent: 1},
		"402, with a transaction":    {answers: []http.HandlerFunc{refuses(402, "", revertedReceipt...)}, outcome: Pending, code: "invalid_transaction_state", sent: 1},
		"402, and used":              {answers: []http.HandlerFunc{breaks, refuses(402, "invalid_exact_evm_nonce_already_used")}, outcome: Pending, code: "invalid_exact_evm_nonce_already_used", sent: 2, pauses: []time.Duration{time.Second}},
		"402, and sent by another":   {answers: []http.HandlerFunc{refuses(402, "", hdr(x402.HeaderPaymentResponse, receipt(false, "duplicate_settlement"))...)}, outcome: Pending, code: "duplicate_settlement", sent: 1},
		"refused after pending":      {answers: []http.HandlerFunc{pending, refuses(402, x402.CodeSettlementFailed)}, outcome: Refused, code: "settlement_failed", sent: 2, pauses: []time.Duration{5 * time.Second}},
		"already used":               {answers: []http.HandlerFunc{refuses(402, x402.CodePaymentAlreadyUsed, paidReceipt...)}, outcome: Failed, code: "payment_already_used", paid: true, sent: 1},
		"refused by body alone":      {answers: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(402) }}, outcome: Refused, sent: 1},
		"upstream fails, not paid":   {answers: []http.HandlerFunc{refuses(500, "")}, outcome: Failed, sent: 1},
		"upstream fails, paid":       {answers: []http.HandlerFunc{refuses(502, "", paidReceipt...)}, outcome: Failed, paid: true, sent: 1},
		"site is down, not charged":  {answers: []http.HandlerFunc{refuses(502, "upstream_failed")}, outcome: Failed, code: "upstream_failed", sent: 1},
		"site is down, paid":         {answers: []http.HandlerFunc{refuses(502, "upstream_failed", paidReceipt...)}, outcome: Failed, code: "upstream_failed", paid: true, sent: 1},
		"site is down, after doubt":  {answers: []http.HandlerFunc{breaks, refuses(502, "upstream_failed")}, outcome: Pending, code: "upstream_failed", sent: 2, pauses: []time.Duration{time.Second}},
		"not found, not paid":        {answers: []http.HandlerFunc{refuses(404, "")}, outcome: Failed, sent: 1},
		"a gateway fails":            {answers: []http.HandlerFunc{refuses(504, "")}, outcome: Pending, sent: 1},
		"a gateway asks to return":   {answers: []http.HandlerFunc{refuses(502, x402.CodeFacilitatorUnavailable, soon...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{5 * time.Second}},
		"an error after pending":     {answers: []http.HandlerFunc{pending, refuses(500, "")}, outcome: Pending, sent: 2, pauses: []time.Duration{5 * time.Second}},
		"too many requests":          {answers: []http.HandlerFunc{refuses(429, "", soon...), delivers}, outcome: Delivered, paid: true, sent: 2, pauses: []time.Duration{5 * time.Second}},
		"not modified":               {answers: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }}, outcome: Delivered, sent: 1},
		"connection breaks":          {answers: []http.HandlerFunc{breaks, breaks, delivers}, outcome: Delivered, paid: true, sent: 3, pauses: []time.Duration{time.Second, 2 * time.Second}},
		"breaks, then refused":       {answers: []http.HandlerFunc{breaks, refuses(402, x402.CodeSettlementFailed)}, outcome: Refused, code: "settlement_failed", sent: 2, pauses: []time.Duration{time.Second}},
		"breaks, then an error":      {answers: []http.HandlerFunc{breaks, refuses(500, "")}, outcome: Pending, sent: 2, pauses: []time.Duration{time.Second}},
		"breaks for ever": {answers: []http.HandlerFunc{breaks}, outcome: Pending, sent: 12, fails: true, pauses: []time.Duration{
			1e9, 2e9, 4e9, 8e9, 15e9, 15e9, 15e9, 15e9, 15e9, 15e9, 15e9,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.answers = tt.answers
			c, clock := newClient(t)
			var told []time.Duration
			c.OnResend = func(r Resend) { told = append(told, r.Pause) }
			result, err := c.Do(s.request(t, http.MethodPost, "/x", strings.NewReader("a question")))
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			text(t, result)
			if result.Outcome != tt.outcome || result.Code != tt.code || result.Paid() != tt.paid {
				t.Errorf("%s, code %q, paid %v", result.Outcome, result.Code, result.Paid())
			}
			sent := s.paid()
			if len(sent) != tt.sent || result.Payment == nil {
				t.Fatalf("%d payments were sent, want %d", len(sent), tt.sent)
			}
			for _, p := range sent {
				if p != sent[0] || p.body != "a question" {
					t.Errorf("a copy differs: %+v", p)
				}
			}
			if !reflect.DeepEqual(clock.pauses, tt.pauses) || !reflect.DeepEqual(told, tt.pauses) {
				t.Errorf("pauses %v, told %v, want %v", clock.pauses, told, tt.pauses)
			}
		})
	}
}

// TestChangedMind: a seller that names another payee after the payment was
// signed gets the payment that was signed, or nothing.
func TestChangedMind(t *testing.T) {
	for status, outcome := range map[int]Outcome{503: Delivered, 402: Refused} {
		s := newSeller(t)
		other := requirement()
		other.PayTo, other.Amount = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "20000"
		template, err := x402.NewTemplate([]x402.Requirement{other}, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.answers = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(x402.HeaderPaymentRequired, template.Header("http://seller.example/", x402.CodePaymentRequired))
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(status)
		}, delivers}
		c, _ := newClient(t)
		result, err := c.Do(s.get(t, "/"))
		text(t, result)
		if err != nil || result.Outcome != outcome {
			t.Errorf("%d: %+v, %v", status, result, err)
		}
		for _, p := range s.paid() {
			sent, err := x402.Decode(http.Header{p.header: {p.value}})
			if err != nil {
				t.Fatal(err)
			}
			if r, err := sent.Chosen(); err != nil || r.PayTo != payTo || r.Amount != "10000" {
				t.Errorf("%d: paid %+v, %v", status, r, err)
			}
		}
	}
}

// TestBodyIsWhole: reading the code of a refusal takes nothing from its body.
func TestBodyIsWhole(t *testing.T) {
	s := newSeller(t)
	s.answers = []http.HandlerFunc{refuses(409, "another")}
	c, _ := newClient(t)
	result, err := c.Do(s.get(t, "/"))
	if got := text(t, result); err != nil || got != `{"error":"another"}` {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStreams: the first bytes of an answer are there before the last are sent.
func TestStreams(t *testing.T) {
	s := newSeller(t)
	read := make(chan struct{})
	s.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-read:
			_, _ = io.WriteString(w, "last")
		case <-r.Context().Done():
		}
	}}
	c, _ := newClient(t)
	result, err := c.Do(s.get(t, "/"))
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(result.Response.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	close(read)
	if rest := text(t, result); rest != "last" {
		t.Errorf("%q", rest)
	}
}

// TestCancelled: who gives up while the payment is pending hears that it is.
func TestCancelled(t *testing.T) {
	s := newSeller(t)
	s.answers = []http.HandlerFunc{refuses(503, x402.CodeSettlementPending, soon...)}
	c, _ := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.OnResend = func(Resend) { cancel() }
	result, err := c.Do(s.get(t, "/").WithContext(ctx))
	if !errors.Is(err, context.Canceled) || result.Outcome != Pending || result.Payment == nil || result.Response != nil {
		t.Errorf("%+v, %v", result, err)
	}
	// The caller keeps the payment, and may come back with it.
	s.mu.Lock()
	s.answers = []http.HandlerFunc{delivers}
	s.mu.Unlock()
	result, err = c.Send(t.Context(), result.Payment)
	if got := text(t, result); err != nil || got != "the goods" {
		t.Fatalf("%q, %v", got, err)
	}
	if sent := s.paid(); len(sent) != 2 || sent[0] != sent[1] {
		t.Errorf("sent %+v", sent)
	}
}

// TestNeverLeft: a payment that could not be sent at all is no payment.
func TestNeverLeft(t *testing.T) {
	s := newSeller(t)
	c, clock := newClient(t)
	c.Wait = -1
	c.Confirm = func(context.Context, *Payment) error { s.Close(); return nil }
	result, err := c.Do(s.get(t, "/"))
	if err == nil || result.Outcome != Unpaid || result.Payment != nil || len(clock.pauses) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestSendUnsigned(t *testing.T) {
	c, _ := newClient(t)
	if _, err := c.Send(t.Context(), &Payment{}); err == nil {
		t.Error("an unsigned payment was sent")
	}
}

// TestRequests: what cannot be sent twice, or has paid already, is not sent.
func TestRequests(t *testing.T) {
	s := newSeller(t)
	c, _ := newClient(t)
	once := s.request(t, http.MethodPost, "/", io.NopCloser(strings.NewReader("x")))
	if _, err := c.Do(once); !errors.Is(err, ErrNotReplayable) {
		t.Error(err)
	}
	paid := s.get(t, "/")
	paid.Header.Set(x402.HeaderXPayment, "x")
	if _, err := c.Do(paid); !errors.Is(err, ErrCarriesPayment) {
		t.Error(err)
	}
	if s.count() != 0 {
		t.Errorf("%d requests", s.count())
	}
	s.challenge = func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }
	result, err := c.Do(s.get(t, "/"))
	if text(t, result); err != nil || result.Outcome != Unpriced || result.Response.StatusCode != http.StatusTeapot {
		t.Errorf("%+v, %v", result, err)
	}
}
