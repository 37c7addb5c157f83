package client

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Outcome says what became of a request.
type Outcome int

// Outcomes.
const (
	// Unpriced: the first answer was no challenge. It is the answer.
	Unpriced Outcome = iota + 1
	// Unpaid: there was a challenge, and nothing was signed.
	Unpaid
	// Delivered: the seller took the payment and handed out the goods.
	Delivered
	// Refused: the seller answered the payment with another 402, and says nothing
	// that speaks against it. By the rules of the protocol nothing has moved, and
	// signing anew is safe.
	Refused
	// Failed: the answer to the payment is neither goods nor a challenge. The
	// receipt, if there is one, tells whether the money has moved.
	Failed
	// Pending: nobody knows yet whether the money has moved. The same payment
	// may be sent again; a new one could pay twice until ValidBefore.
	Pending
)

// String is the outcome in a word.
func (o Outcome) String() string {
	switch o {
	case Unpriced:
		return "unpriced"
	case Unpaid:
		return "unpaid"
	case Delivered:
		return "delivered"
	case Refused:
		return "refused"
	case Failed:
		return "failed"
	case Pending:
		return "pending"
	default:
		return "undecided"
	}
}

// Result is what became of a request.
type Result struct {
	Outcome Outcome
	// Response is the last answer, its body not yet read; nil if there is none.
	// Whoever gets it closes the body.
	Response *http.Response
	// Challenge is what was asked for, nil for an unpriced request.
	Challenge *Challenge
	// Payment is what was signed; nil: nothing was.
	Payment *Payment
	// Receipt is the seller's word on the payment; nil: none that can be read.
	Receipt *x402.Receipt
	// Code is the seller's machine code for a refusal; may be "".
	Code string
	// Message is what the seller says beside it, for people; may be "".
	Message string

	seen    bool   // a copy of the payment may have reached the seller
	guard   *guard // of the Response
	unknown bool   // an earlier copy has not been decided about
}

// Paid reports whether the seller says that the money has moved.
func (r *Result) Paid() bool { return r.Receipt != nil && r.Receipt.Success }

// uncharged are the codes with which our gate says that the site behind it failed.
// With a receipt the payment was settled before, and without one never.
var uncharged = []string{"upstream_failed", "upstream_gave_no_answer", "upstream_usage_invalid"}

// Uncharged reports whether the seller says that the site failed and nothing was
// charged for it.
func (r *Result) Uncharged() bool {
	return r.Receipt == nil && !r.unknown && slices.Contains(uncharged, r.Code)
}

// read takes what an answer to a payment says, and leaves its body to be read.
func (r *Result) read(resp *http.Response) {
	r.Response = resp
	r.Code, r.Message = refusalOf(resp)
	r.keep(readReceipt(resp.Header))
	if r.Code == "" && r.Receipt != nil {
		r.Code = r.Receipt.ErrorReason
	}
	r.Outcome = r.judge(resp.StatusCode)
	r.unknown = r.Outcome == Pending
}

// keep takes a receipt. The word that the money has moved stands: where a redirect
// leads after it, somebody else may speak.
func (r *Result) keep(receipt *x402.Receipt) {
	if receipt != nil && !r.Paid() {
		r.Receipt = receipt
	}
}

// judge names the outcome of an answer to a payment.
func (r *Result) judge(status int) Outcome {
	goods := status >= 200 && status < 300 || status == http.StatusNotModified
	switch {
	case goods:
		return Delivered
	case r.Paid():
		return Failed // also a 402: the payment was used before
	case status == http.StatusPaymentRequired && !r.leavesOpen():
		return Refused
	case status == http.StatusPaymentRequired, r.Code == string(x402.CodeSettlementPending), r.Code == string(x402.CodePaymentInFlight):
		return Pending
	case r.Uncharged():
		return Failed
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		// Whoever answered cannot tell what the one behind it did.
		return Pending
	case r.unknown:
		return Pending // this answer does not decide about the earlier copy
	default:
		return Failed
	}
}

// leavesOpen reports whether a 402 does not say that nothing has moved, though by
// the rules of the protocol it should. The official servers answer so, too, when a
// transaction was sent and not seen in a block. And our nonces are random: one that
// is used was used by this payment.
func (r *Result) leavesOpen() bool {
	reasons := []string{r.Code}
	if r.Receipt != nil {
		if r.Receipt.Transaction != "" {
			return true
		}
		reasons = append(reasons, r.Receipt.ErrorReason)
	}
	return slices.ContainsFunc(reasons, func(reason string) bool {
		return reason == string(x402.CodeSettlementPending) || slices.ContainsFunc(usedUp, func(s string) bool { return strings.Contains(reason, s) })
	})
}

// usedUp are parts of the codes for a payment that has been used.
var usedUp = []string{"already_used", "duplicate_settlement", "permit2_invalid_nonce", "timed_out"}

// readReceipt returns the receipt of an answer, nil if there is none or it is
// no receipt: a broken one is no reason to throw goods away.
func readReceipt(h http.Header) *x402.Receipt {
	for _, name := range []string{x402.HeaderPaymentResponse, x402.HeaderXPaymentResponse} {
		if v := h.Get(name); v != "" {
			if receipt, err := x402.DecodeReceipt(v); err == nil {
				return &receipt
			}
		}
	}
	return nil
}

// refusalOf returns the error of a challenge, or the error and the message of a small JSON
// body. What it reads of the body is put back.
func refusalOf(resp *http.Response) (code, message string) {
	if resp.StatusCode < 400 {
		return "", ""
	}
	if header := resp.Header.Get(x402.HeaderPaymentRequired); header != "" {
		if ch, err := x402.DecodeChallenge(header); err == nil && ch.Error != "" {
			return ch.Error, ""
		}
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/json" || resp.ContentLength <= 0 || resp.ContentLength > maxBodyBytes {
		return "", "" // a stream would make us wait
	}
	read, err := io.ReadAll(resp.Body)
	resp.Body = &unread{io.MultiReader(bytes.NewReader(read), resp.Body), resp.Body}
	var w struct {
		Error   string         `json:"error"`
		Message jsontext.Value `json:"message"`
	}
	if err != nil || json.Unmarshal(read, &w) != nil {
		return "", ""
	}
	if w.Message.Kind() != jsontext.KindString || json.Unmarshal(w.Message, &message) != nil {
		message = "" // the code counts, whatever others put beside it
	}
	return w.Error, message
}

// unread is a body of which some was read and put back.
type unread struct {
	io.Reader
	io.Closer
}
