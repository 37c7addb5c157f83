package paywall

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// claim takes the authorization for this request alone. If it was taken
// before, its row says what this request may have of it.
func (p *purchase) claim(r *http.Request, misfit *refusal) *refusal {
	if p.auth.Key == "" {
		return misfit
	}
	now := p.h.now()
	row := ledger.Payment{
		Key:         ledger.Key(p.auth.Key),
		Scheme:      p.request.Requirement.Scheme,
		Network:     p.request.Requirement.Network,
		Asset:       p.request.Requirement.Asset,
		PayTo:       p.request.Requirement.PayTo,
		Payer:       p.auth.Payer,
		Amount:      p.request.Requirement.Amount,
		ValidBefore: p.auth.validBefore(),
		Method:      r.Method,
		Host:        strings.ToLower(r.Host),
		URL:         requestURI(r),
		Client:      clientNetwork(r),
		Identifier:  p.identifier,
		Body:        declaredBody(r),
		Keep:        now.Add(maxLife + time.Duration(p.h.RetryWindow)),
	}
	if p.auth.ValidBefore == 0 {
		row.Keep = now.Add(keepWithoutEnd)
	}
	row.ID = ledger.ID(row.Key)
	p.held.Payment = row

	ctx, cancel := ledgerContext(r.Context())
	defer cancel()
	if misfit != nil {
		known, err := p.h.app.ledger.Get(ctx, row.Key)
		if errors.Is(err, ledger.ErrNotFound) || err == nil && ledger.Claimable(known, now) {
			return misfit
		}
		if err != nil {
			return p.ledgerFailed("looking up", err)
		}
		p.settlers = nil // what does not fit is not settled, whatever comes
		return p.claimAgain(ctx, known, row)
	}
	if refused := p.orderOnce(row); refused != nil {
		return refused
	}
	if !p.stranger {
		if refused := p.redeemEarlier(r); p.settled || refused != nil {
			return refused
		}
	}
	if refused := p.mayTry(now); refused != nil {
		p.outcome = "limited"
		return refused
	}
	held, err := p.h.app.ledger.Claim(ctx, row, leaseFor)
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		return p.claimAgain(ctx, taken.Payment, row)
	}
	if err != nil {
		return p.ledgerFailed("claiming", err)
	}
	p.hold(held)
	if refused := p.try(now); refused != nil {
		p.outcome = "limited"
		return refused
	}
	if !p.stranger { // else it was not looked yet
		return p.namedTwice(ctx)
	}
	return nil
}

// orders are the requests with effects that are being sold in this process, by
// payer, request and declared body.
var orders sync.Map

// orderOnce lets one order of a payer be sold at a time. A payer who hung up
// while it was verified, and signs the same order anew, waits for the first: the
// server learns of the hang-up only after it has read the body.
func (p *purchase) orderOnce(row ledger.Payment) *refusal {
	if safeMethod(row.Method) || row.Payer == "" || row.Body == "" {
		return nil
	}
	order := strings.Join([]string{row.Payer, row.Method, row.Host, row.URL, row.Body}, "\x00")
	if _, sold := orders.LoadOrStore(order, true); sold {
		return &refusal{status: http.StatusConflict, code: x402.CodePaymentInFlight, retryAfter: 2}
	}
	p.order = order
	return nil
}

// claimAgain decides about a payment that the ledger knows. A header alone
// proves nothing: once settled, anybody can read the signature on the chain.
// So the goods, or word of them, go only to the request that was paid for, from
// the network it came from.
func (p *purchase) claimAgain(ctx context.Context, row, again ledger.Payment) *refusal {
	p.held.Payment = row
	if row.State == ledger.Delivered {
		return &refusal{status: http.StatusPaymentRequired, code: x402.CodePaymentAlreadyUsed, receipt: p.receipt(row)}
	}
	if ledger.Held(row, p.h.now()) {
		return &refusal{status: http.StatusConflict, code: x402.CodePaymentInFlight, retryAfter: 2}
	}
	// Its own name for the purchase is the payer's secret, and no network is needed.
	named := row.Identifier != "" && row.Identifier == again.Identifier && sameGoods(row, again)
	if !named && !sameRequest(row, again) || p.boughtAnother(row) {
		return &refusal{status: http.StatusConflict, code: codeBoughtElse}
	}
	to := ledger.Delivering
	if row.State != ledger.Settled && row.State != ledger.Delivering {
		if !p.askAgain(row) {
			return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 30, receipt: p.pendingReceipt()}
		}
		to = ledger.Settling
	} else if refused := p.redeemable(row); refused != nil {
		return refused
	}
	if to == ledger.Settling {
		var refused *refusal
		if p.seat, refused = unsettled.enter(p.bearer()); refused != nil {
			p.outcome = "limited"
			return refused
		}
	}
	held, err := p.h.app.ledger.Take(ctx, row.Key, to, leaseFor)
	if _, ok := errors.AsType[*ledger.TakenError](err); ok {
		return &refusal{status: http.StatusConflict, code: x402.CodePaymentInFlight, retryAfter: 2}
	}
	if err != nil {
		return p.ledgerFailed("taking over", err)
	}
	p.hold(held)
	p.settled = to == ledger.Delivering
	if p.settled {
		p.runs = 1
	}
	return nil
}

// redeemable says whether a settled payment may start the upstream once more.
func (p *purchase) redeemable(row ledger.Payment) *refusal {
	switch {
	case p.h.now().After(row.Created.Add(time.Duration(p.h.RetryWindow))),
		row.Runs >= maxRuns,
		acted(row) && len(row.Answer) == 0:
		return &refusal{status: http.StatusConflict, code: x402.CodeDeliveryUnconfirmed, receipt: p.receipt(row)}
	}
	return nil
}

// sameRequest says whether a request asks for what the payment bought: the
// same method, host and URL from the same client network. A HEAD buys one GET.
func sameRequest(bought, asked ledger.Payment) bool {
	method := bought.Method == asked.Method || bought.Method == http.MethodHead && asked.Method == http.MethodGet
	return method && bought.Host == asked.Host && bought.URL == asked.URL && bought.Client == asked.Client
}

func safeMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "QUERY":
		return true
	}
	return false
}

// hold makes the purchase the holder of the claim for as long as it lives.
func (p *purchase) hold(c ledger.Claim) {
	p.held = c
	p.lease = keepLease(p.h.app.ledger, c, p.h.renewEvery, p.h.logger)
}

// letGo is the end of every purchase: what was claimed and not settled is free
// again, what was settled and not delivered can be fetched. Only its first call
// does anything.
func (p *purchase) letGo() {
	if p.gone {
		return
	}
	p.gone = true
	if p.lease != nil { // else the settlement goes on alone, and holds the claim
		p.lease.end()
		switch p.held.Payment.State {
		case ledger.Claimed:
			_ = p.move(ledger.Change{To: ledger.Released})
		case ledger.Settled, ledger.Delivering:
			_ = p.move(ledger.Change{To: ledger.Settled, Status: p.status, Runs: p.runs, Answer: p.answer})
		}
	}
	p.seat.leave() // unless the settlement goes on alone
	p.acquit()
	if p.order != "" {
		orders.Delete(p.order)
	}
	p.report()
}
