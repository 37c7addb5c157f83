package paywall

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Codes of refusals that are the gate's own. They are stable: payers' software
// may act on them.
const (
	codeUndecided            x402.Code = "price_undecided"
	codeRefused              x402.Code = "not_for_sale"
	codeMethodNotAllowed     x402.Code = "method_not_allowed"
	codeAmbiguousPath                  = x402.CodeAmbiguousPath
	codeChargedTwice         x402.Code = "priced_twice"
	codeNoFacilitator        x402.Code = "no_facilitator"
	codeTooEarly             x402.Code = "too_early"
	codeLedger               x402.Code = "ledger_unavailable"
	codeBoughtElse           x402.Code = "payment_bought_something_else"
	codeOtherCredentials     x402.Code = "other_credentials"
	codeIdentifierTaken      x402.Code = "payment_identifier_conflict"
	codeTooManyStrangers     x402.Code = "too_many_contract_wallets"
	codeTooManyTries         x402.Code = "too_many_bad_payments"
	codeBodyTooSlow          x402.Code = "request_body_too_slow"
	codeBodyTooLarge         x402.Code = "request_body_too_large"
	codeUpstreamDown         x402.Code = "upstream_unavailable"
	codeUpstreamWantsPayment x402.Code = "upstream_wants_payment"
	codeUpstreamFailed       x402.Code = "upstream_failed"
	codeClientGone           x402.Code = "client_gone"
	codeNoAnswer             x402.Code = "upstream_gave_no_answer"
	codeUsage                x402.Code = "upstream_usage_invalid"
	codeUptoFirst            x402.Code = "upto_cannot_be_settled_first"
	codeUsedMore             x402.Code = "usage_above_charge"
	codeUpstreamSlow         x402.Code = "upstream_too_slow"
)

// refusal is an answer of the gate instead of the goods.
type refusal struct {
	status     int
	code       x402.Code
	receipt    *x402.Receipt // nil: none
	retryAfter int           // seconds; 0: none
	allow      []string      // for 405
	cause      error         // for the log, never for the payer
}

// refuseAnew refuses a payment in a way that makes signing a new one safe.
func refuseAnew(code x402.Code, cause error) *refusal {
	return &refusal{status: http.StatusPaymentRequired, code: code, cause: cause}
}

// unavailable refuses because nobody could tell whether a payment is good.
func unavailable(err error) *refusal {
	r := &refusal{status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable, retryAfter: 10, cause: err}
	if e, ok := errors.AsType[*facilitator.Error](err); ok {
		if e.Status == http.StatusBadGateway {
			r.status = e.Status
		}
		if e.Code != "" {
			r.code = e.Code
		}
		if e.RetryAfter > 0 {
			r.retryAfter = seconds(e.RetryAfter)
		}
	}
	return r
}

// detail makes a facilitator's words an error for the log.
func detail(s string) error {
	if s == "" {
		return nil
	}
	return errors.New(s)
}

// codeOf is the machine code of an error of the x402 package.
func codeOf(err error) x402.Code {
	if e, ok := errors.AsType[*x402.Error](err); ok {
		return e.Code
	}
	return x402.CodePaymentMalformed
}

// challenge answers 402: what the request costs, and why what came does not
// pay for it. It is written directly, so that no error route can make it a 200.
func (h *Handler) challenge(w http.ResponseWriter, r *http.Request, o *offer.Offer, code x402.Code, receipt *x402.Receipt) error {
	url := h.resourceURL(r)
	header := w.Header()
	h.ownAnswer(header, r)
	header[x402.HeaderPaymentRequired] = []string{o.Template.Header(url, code)}
	setReceipts(header, receipt)
	if code == x402.CodePaymentRequired && isBrowser(r) {
		header["Content-Type"] = []string{"text/html; charset=utf-8"}
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = w.Write(h.page)
		return nil
	}
	body := o.Template.AppendBody(nil, url, code)
	header.Set("Content-Type", "application/json")
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusPaymentRequired)
	_, _ = w.Write(body)
	return nil
}

// statusClientGone is what Caddy logs for a client that has left.
const statusClientGone = admission.ClientGone

// refuse answers with a status and a code.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, f refusal) error {
	header := w.Header()
	h.ownAnswer(header, r)
	setReceipts(header, f.receipt)
	if f.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	if len(f.allow) > 0 {
		header.Set("Allow", strings.Join(f.allow, ", "))
	}
	body, err := json.Marshal(struct {
		Error x402.Code `json:"error"`
	}{f.code})
	if err != nil {
		body = nil // the status says enough
	}
	header.Set("Content-Type", "application/json")
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
	return nil
}

// refuseSale answers a request that came with a payment, and records why for
// the operator.
func (h *Handler) refuseSale(w http.ResponseWriter, r *http.Request, p *purchase, f refusal) error {
	var shown *offer.Offer
	if f.status == http.StatusPaymentRequired {
		var wait time.Duration
		var down error
		if shown, wait, down = p.offered.price.offersFor(p.offered.first).Shown(p.offered.current, h.now()); down != nil {
			// Nobody is asked to sign what nobody could settle.
			closed := outage(wait)
			closed.receipt, closed.cause, f = f.receipt, f.cause, closed
		}
	}
	if p.result.outcome == "" {
		p.result.outcome = metrics.Rejected
		if p.result.settled {
			p.result.outcome = metrics.Undelivered // it is owed
		}
	}
	p.result.refused = &f
	p.letGo() // before a payer who reads slowly, or sends slowly, is written to
	if f.receipt != nil && p.signed.payment.Version == x402.V1 {
		v1 := f.receipt.V1()
		f.receipt = &v1
	}
	if f.status == http.StatusPaymentRequired {
		h.shared.offered.Remember(p.offered.resource, shown, h.now())
		return h.challenge(w, r, shown, f.code, f.receipt)
	}
	return h.refuse(w, r, f)
}

// ownAnswer prepares the header of an answer that is the gate's own.
func (h *Handler) ownAnswer(header http.Header, r *http.Request) {
	header.Set("Cache-Control", "no-store")
	for _, name := range []string{"Etag", "Last-Modified", "Expires"} {
		delete(header, name) // a `header` directive's, about the page
	}
	h.addCORS(header, r)
	if uploads(r) {
		header.Set("Connection", "close")
	}
}

// smallUpload is what a server reads of a body for the sake of the connection,
// before it answers.
const smallUpload = 256 << 10

// uploads says whether the body of a refused request must not be waited for: its
// client waits for us (Expect), has more to send than a new connection costs, or
// nobody knows how much. Else net/http reads it before it answers, since it does not
// know the body by which Caddy has replaced its own. HTTP/2 and 3 can end one stream
// alone.
func uploads(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.Header.Get("Expect") != "" || r.ContentLength > smallUpload || r.ContentLength < 0)
}

// isBrowser says whether a person is looking: the rule of the official servers.
func isBrowser(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html") && strings.Contains(r.Header.Get("User-Agent"), "Mozilla")
}

// setReceipts puts a receipt under the names of both protocol versions; which
// of them a failed payer reads is not always known.
func setReceipts(header http.Header, receipt *x402.Receipt) {
	if receipt == nil {
		return
	}
	// One slice each: Caddy's header directive edits values in place.
	encoded := receipt.Encode()
	header[x402.HeaderPaymentResponse] = []string{encoded}
	header[x402.HeaderXPaymentResponse] = []string{encoded}
}

// receipt tells what became of a settled payment.
func (p *purchase) receipt(row ledger.Payment) *x402.Receipt {
	receipt := &x402.Receipt{
		Success:     true,
		Transaction: row.Transaction,
		Network:     row.Network,
		Payer:       row.Payer,
		Extensions:  p.result.receipt.Extensions,
		Extra:       p.result.receipt.Extra,
	}
	if row.Scheme == x402.SchemeUpto {
		receipt.Amount = row.Amount // else it is the price
	}
	return receipt
}

// pendingReceipt tells that the money may have moved, and that the same payment
// is worth sending again.
func (p *purchase) pendingReceipt(row ledger.Payment) *x402.Receipt {
	r := failedReceipt(row, x402.CodeSettlementPending)
	return &r
}

func failedReceipt(row ledger.Payment, code x402.Code) x402.Receipt {
	return x402.Receipt{
		Transaction: row.Transaction,
		Network:     row.Network,
		Payer:       row.Payer,
		ErrorReason: string(code),
	}
}

// setReceipt puts the receipt of a settled payment on the paid answer, under
// the name that the payer's version of the protocol reads.
func (p *purchase) setReceipt(header http.Header) {
	receipt := p.receipt(p.hold.Payment)
	name := x402.HeaderPaymentResponse
	if p.signed.payment.Version == x402.V1 {
		v1 := receipt.V1()
		receipt, name = &v1, x402.HeaderXPaymentResponse
	}
	delivery.RemoveReceipts(header)
	header[name] = []string{receipt.Encode()}
}

// report writes the one log line of a payment, and counts it.
func (p *purchase) report() {
	outcome := p.result.outcome
	if outcome == "" {
		return
	}
	metrics.CountPayment(outcome)
	row := p.hold.Payment
	if p.result.about != nil {
		row = *p.result.about
	}
	fields := []zap.Field{
		zap.String("outcome", string(outcome)),
		zap.String("payment", row.ID),
		zap.String("payer", row.Payer),
		zap.String("network", row.Network),
		zap.String("asset", row.Asset),
		zap.String("amount", row.Amount),
		zap.String("facilitator", row.Facilitator),
		zap.String("transaction", row.Transaction),
		zap.String("method", row.Method),
		zap.String("host", row.Host),
		zap.Int("upstream_status", p.result.status),
		zap.Duration("duration", p.desk.Now().Sub(p.ask.started)),
	}
	level := zap.InfoLevel
	if f := p.result.refused; f != nil {
		fields = append(fields, zap.Int("status", f.status), zap.String("code", string(f.code)), zap.Error(f.cause))
		if f.status >= http.StatusInternalServerError {
			level = zap.ErrorLevel
		}
	}
	logger := p.desk.Logger
	switch outcome {
	case metrics.Limited:
		level = zap.DebugLevel // a flood must not fill the log
	case metrics.Rejected, metrics.Invalid, metrics.Unverified, metrics.Expired:
		logger = p.desk.Sampled // anybody can send what costs him nothing
	}
	logger.Log(level, "payment", fields...)
}
