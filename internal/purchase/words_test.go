package purchase

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestEveryRefusalSaysWhatToDo: the words of a refusal are plain text, and end with what the
// payer can do.
func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	refusals := []*Refusal{
		inFlight(), busyWith(sayEarlier), busyWith(sayOrderPaid), busyWith(sayKeeping), boughtElse(), identifierTaken(), bodyTooSlow(), tooLate(), clockOff(nil),
		unavailable(nil), tooManyTries(), tooManyStrangers(), noSlot(admission.Busy), noSlot("too_many_unsettled_payments"),
		{Code: x402.CodeSettlementPending},
		{Code: x402.CodeSettlementPending, says: sayEarlierPending},
	}
	for _, code := range []x402.Code{
		CodeNoFacilitator, CodeTooEarly, codeLedger, codeOtherCredentials, codeBodyTooLarge, codeUpstreamDown, codeUpstreamWantsPayment, codeUpstreamFailed, codeNoAnswer, codeUsage,
		codeUsedMore, x402.CodeDeliveryUnconfirmed, facilitator.CodeTimeout, facilitator.CodeInvalidAnswer, facilitator.CodeUnavailable, "too_many_hang_ups", "too_many_fetches",
	} {
		refusals = append(refusals, &Refusal{Code: code})
	}
	last := regexp.MustCompile(`(Send|Call|Do not|Ask|Sign|Tell|To buy|An order)[^.]*( [^.]*)?\.$`)
	for _, f := range refusals {
		for _, receipt := range []*x402.Receipt{nil, {Success: true}} {
			f.Receipt = receipt
			said := f.Words(24 * time.Hour)
			if !last.MatchString(said) || strings.ContainsAny(said, "{}\n\"\\") || len(said) > 450 {
				t.Errorf("%s: %q", f.Code, said)
			}
			if receipt != nil && sayFailed[f.Code] != "" && (strings.Contains(said, "not been charged") || !strings.Contains(said, "within 24 h: it is not charged twice")) {
				t.Errorf("%s, paid: %q", f.Code, said)
			}
		}
	}
}

// TestErrorsAreInTheDocs: what has words is in the table that payers' programmers read.
func TestErrorsAreInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/payments.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []map[x402.Code]string{sayings, sayFailed} {
		for code := range said {
			if !strings.Contains(string(page), "`"+string(code)+"`") {
				t.Errorf("docs/payments.md does not have %s", code)
			}
		}
	}
}

func TestWordsForTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{24 * time.Hour: "24 h", 90 * time.Minute: "90 min", time.Hour: "1 h", 5 * time.Second: "5s"} {
		if got := inWords(d); got != want {
			t.Errorf("%s: %q", d, got)
		}
	}
	if said := (&Refusal{Status: http.StatusForbidden, Code: CodeRefused}).Words(time.Hour); said != "" {
		t.Error(said)
	}
}
