package commands

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// report tells a person what happens, on stderr. Texts of sellers are cleaned.
type report struct {
	w              io.Writer
	quiet, verbose bool
	challenge      *client.Challenge // the last one that was told
}

func (r *report) line(format string, args ...any) {
	if !r.quiet {
		r.always(format, args...)
	}
}

func (r *report) always(format string, args ...any) {
	r.prompt("%s\n", clean(fmt.Sprintf(format, args...)))
}

// prompt leaves the cursor where it is. A terminal that is gone is no reason to
// stop.
func (r *report) prompt(format string, args ...any) {
	_, _ = fmt.Fprintf(r.w, format, args...)
}

// asked tells of a challenge, once, whether or not it can be paid.
func (r *report) asked(result *client.Result) {
	if result == nil || result.Challenge == nil || r.challenge == result.Challenge {
		return
	}
	r.tell(result.Challenge, nil)
}

// price tells of a challenge, and of the offer that was chosen.
func (r *report) price(p *client.Payment) {
	r.tell(p.Challenge, &p.Offer)
	o := &p.Offer
	r.line("price: %s", inWords(o))
	if p.Payer != "" {
		r.line("payer: %s", p.Payer)
	}
	if p.Challenge.Insecure() {
		r.line("warning: this is http, not https: whoever is on the way can change the price and who is paid")
	}
}

func (r *report) tell(ch *client.Challenge, chosen *client.Offer) {
	r.challenge = ch
	what := ""
	if ch.Resource.Description != "" {
		what = fmt.Sprintf(" (%s)", phrase(ch.Resource.Description))
	}
	r.line("402 %s: %s%s", orElse(phrase(ch.Error), "Payment required"), bare(ch.URL), what)
	if !r.verbose {
		return
	}
	for i := range ch.Offers {
		o := &ch.Offers[i]
		switch {
		case o.Obstacle != nil && o.Requirement.Scheme == "":
			r.line("offer %d: %v", o.Number, o.Obstacle)
			continue
		case o.Obstacle != nil:
			r.line("offer %d: %s of %s on %s: %v", o.Number, phrase(o.Requirement.Amount), phrase(o.Requirement.Asset), phrase(o.Requirement.Network), o.Obstacle)
			continue
		}
		mark := ""
		if chosen != nil && chosen.Number == o.Number {
			mark = " (chosen)"
		}
		r.line("offer %d: %s%s", o.Number, inWords(o), mark)
	}
}

// paid tells of the receipt.
func (r *report) paid(result *client.Result) {
	if result == nil || result.Payment == nil {
		return
	}
	network := result.Payment.Offer.Network
	receipt := toldReceipt(result.Receipt)
	switch {
	case receipt == nil && result.Outcome == client.Delivered:
		r.line("receipt: none; the seller does not say what became of the payment")
	case receipt == nil:
	case receipt.Success:
		r.line("receipt: paid%s, %s on %s%s", charged(result), transactionOf(receipt), network.Name, worth(network))
	case result.Outcome == client.Pending:
		r.line("receipt: not decided yet (%s), %s on %s", orElse(receipt.ErrorReason, "no reason"), transactionOf(receipt), network.Name)
	default:
		r.line("receipt: not paid (%s), %s on %s", orElse(receipt.ErrorReason, "no reason"), transactionOf(receipt), network.Name)
	}
	if receipt == nil {
		return
	}
	if n, _ := money.FindNetwork(receipt.Network); n.CAIP2 != network.CAIP2 {
		r.line("warning: the receipt names another network: %s", receipt.Network)
	}
	if r.verbose {
		r.line("receipt: payer %s, amount %s, %s", orElse(receipt.Payer, "not named"), orElse(receipt.Amount, "not named"), orElse(receipt.ErrorMessage, "no message"))
	}
}

// transactionOf is the transaction that a receipt names, in words if it names none.
func transactionOf(r *x402.Receipt) string {
	if r.Transaction == "" {
		return "no transaction"
	}
	return "transaction " + r.Transaction
}

// toldReceipt is a receipt whose texts may be told.
func toldReceipt(of *x402.Receipt) *x402.Receipt {
	if of == nil {
		return nil
	}
	told := *of
	for _, text := range []*string{&told.Transaction, &told.ErrorReason, &told.ErrorMessage, &told.Network, &told.Payer, &told.Amount} {
		*text = phrase(*text)
	}
	return &told
}

// charged is what was charged of an amount that was a maximum, such as " 0.0038 USDC".
func charged(result *client.Result) string {
	o, amount := result.Payment.Offer, phrase(result.Receipt.Amount)
	if !o.Upto() || amount == "" {
		return ""
	}
	if !o.Known {
		return " " + amount + " units"
	}
	return " " + money.FormatAtomic(amount, o.Asset.Decimals) + " " + o.Asset.Symbol
}

// resend tells that the same payment will be sent again.
func (r *report) resend(again client.Resend) {
	why := "no answer"
	switch {
	case again.Err != nil && r.verbose:
		why = again.Err.Error()
	case again.Status != 0:
		why = fmt.Sprintf("%d %s", again.Status, phrase(again.Code))
	}
	r.line("%s: sending the same payment again in %s", why, again.Pause.Round(time.Millisecond))
}

// redirect tells where we are led, and what does not come along.
func (r *report) redirect(to *url.URL, withheld []string) {
	without := ""
	if len(withheld) > 0 {
		without = ", which does not get " + strings.Join(withheld, ", ")
	}
	r.line("redirected to another origin: %s://%s%s", to.Scheme, to.Host, without)
}

// bare is a URL without the user before its host: a token may stand there.
func bare(u *url.URL) string {
	shown := *u
	shown.User = nil
	return shown.String()
}

// inWords is a price, such as "0.01 USDC on base to 0x…".
func inWords(o *client.Offer) string {
	return fmt.Sprintf("%s on %s to %s%s", o.Price(), o.Network.Name, o.PayTo(), worth(o.Network))
}

// worth warns that money is not worth anything.
func worth(n money.Network) string {
	if n.Test {
		return " (TEST MONEY)"
	}
	return ""
}

func orElse(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}
