package purchase

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// What a payer reads beside the code of a refusal, which his software acts on: what is so, and
// what to do. Nothing of it comes from a request, an upstream or a facilitator. It says that
// something was not charged only where that is certain for every payment that meets it.

// Of what payment_in_flight is about, which may be another payment than the one that came.
const (
	sayHeld = "This payment is held right now, by another request with it or by a settlement that has not ended. " +
		"Send the same payment again in a few seconds: it is not charged twice."
	sayEarlier = "Another payment of yours, for the same request, is still being worked on. This payment has not been charged. " +
		"Call again in a few seconds, within {window}: the same request is not charged twice. " +
		"An order that only looks the same needs a payment-identifier or Idempotency-Key of its own."
	sayOrderPaid = "The same order of yours is in another request. What you have paid for is still yours. " +
		"Call again in a few seconds, within {window}: it is not charged twice."
	sayKeeping = "What you have paid for was done, and its answer is still being stored. " +
		"Call again in a few seconds, within {window}: it is not charged twice."
)

// Of what settlement_pending is about.
const (
	sayPending = "It is not known yet whether this payment has been charged. " +
		"Call again with the same payment, within {window}: it is not charged twice. Do not sign another one."
	sayEarlierPending = "It is not known yet whether an earlier payment of yours, for the same request, has been charged. This payment has not been charged. " +
		"Call again within {window}: the same request is not charged twice."
)

// sayings are by code, where one says all.
var sayings = map[x402.Code]string{
	x402.CodePaymentInFlight:     sayHeld,
	x402.CodeSettlementPending:   sayPending,
	x402.CodeDeliveryUnconfirmed: "This was paid for and sent, but was not seen to arrive, and cannot be sent again. It is not charged again. Ask the seller, and name the transaction of the receipt.",
	codeBoughtElse: "This payment was first sent for something else (another URL, method or body), or from another network, or not by its payer. " +
		"What it has bought is handed out to the request that it was sent for. To buy this, sign a new payment.",
	codeOtherCredentials: "This was bought with other credentials, such as another cookie or key, and its answer goes out with those only. " +
		"Call again with them: it is not charged twice. To buy the same for others, sign a new payment with a payment-identifier of its own.",
	codeIdentifierTaken: "The payment-identifier of this payment names another request. This payment has not been charged. Sign one with a new identifier.",
	codeUsedMore:        "The site would charge more by now than what was charged, so nothing is handed out, and nothing more is charged. Sign a new payment to buy it.",

	CodeNoFacilitator:               "The seller cannot take payments right now. Call again later.",
	x402.CodeFacilitatorUnavailable: "Nobody can check or take payments for the seller right now. Call again later, with the same payment if you have sent one: it is not charged twice.",
	"facilitator_timeout":           "Whoever checks payments for the seller did not answer in time. Send the same payment again: it is not charged twice.",
	"facilitator_invalid_answer":    "Whoever checks payments for the seller gave no sensible answer. Send the same payment again later: it is not charged twice.",
	codeLedger:                      "The seller's records cannot be read or written right now. Call again, within {window}, and with the same payment if you have sent one: it is not charged twice.",
	codeClockOff:                    "The seller's clock is wrong, so the payment cannot be judged. Send the same payment again later: it is not charged twice.",
	codeUpstreamDown:                "The site has failed for several payers, so no money is taken for it now. This payment has not been charged. Send it again later.",
	CodeTooEarly:                    "A payment must not be sent in early data. Send the same payment again: it is not charged twice.",

	"too_busy":                    "Too many payments are being worked on right now. Send the same payment again in a few seconds: it is not charged twice.",
	codeTooManyStrangers:          "Too many payments of contract wallets are being checked right now. Send the same payment again in a few seconds: it is not charged twice.",
	"too_many_unsettled_payments": "Too many payments of yours, or from your network, are being worked on right now. Send the same payment again in a few seconds: it is not charged twice.",
	codeTooManyTries:              "Too many payments from your network were no good lately. Send the same payment again in a few seconds: it is not charged twice.",
	"too_many_hang_ups":           "You have left before answers that you had paid for, several times. What you have paid for is still yours. Call again later, within {window}: it is not charged twice.",
	"too_many_fetches":            "You have fetched what you have paid for many times, and the site did not give it. It is still yours. Call again later, within {window}: it is not charged twice.",

	codeBodyTooSlow:  "The body of the request came too slowly. Send the same payment again: it is not charged twice.",
	codeBodyTooLarge: "The body of the request is longer than the site takes. Send a shorter one with the same payment: it is not charged twice.",
	codeUpstreamSlow: "The site did not answer while the payment could wait. This payment has not been charged. Call again.",
	codeUsage:        "The site asked for more than its maximum, or for what is no amount. This payment has not been charged. Tell the seller.",
}

// sayFailed is what became of a payment whose upstream has failed.
var sayFailed = map[x402.Code]string{
	codeUpstreamFailed:       "The site behind the price failed.",
	codeNoAnswer:             "The site behind the price gave no answer.",
	codeUpstreamWantsPayment: "The site behind the price wants another payment of its own.",
}

const (
	sayUncharged = " This payment has not been charged. Call again later."
	sayPaid      = " What you have paid for is still yours. Call again later, within {window}: it is not charged twice."
)

// Words are what a payer reads: what is so, and what to do. What is bought can be fetched for
// the window. It is "" where the code says all.
func (f *Refusal) Words(window time.Duration) string {
	said := f.says
	if said == "" {
		said = sayings[f.Code]
	}
	if failed := sayFailed[f.Code]; failed != "" {
		said = failed + sayUncharged
		if f.Receipt != nil && f.Receipt.Success {
			said = failed + sayPaid
		}
	}
	return strings.ReplaceAll(said, "{window}", inWords(window))
}

// inWords says a time as people do, in whole minutes at least.
func inWords(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return d.String()
}

// inFlight refuses a payment that somebody holds.
func inFlight() *Refusal { return busyWith(sayHeld) }

// busyWith refuses what is being worked on, and says what that is.
func busyWith(says string) *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: x402.CodePaymentInFlight, RetryAfter: 2, says: says}
}

// earlierInFlight refuses a payment because of another one of its payer.
func (p *Purchase) earlierInFlight() *Refusal {
	if p.result.settled {
		return busyWith(sayOrderPaid)
	}
	return busyWith(sayEarlier)
}
