package commands

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/client"
)

// confirm is asked before anything is signed.
func (p *pay) confirm(ctx context.Context, payment *client.Payment) error {
	p.report.price(payment)
	if p.dryRun {
		return p.show(payment)
	}
	open := p.openDoubts(payment.Offer)
	if len(open) == 0 {
		return nil
	}
	// A body from stdin has used up what could be the answer.
	if p.data == "@-" || !p.terminal(p.in) {
		return notAgreed(payment, open)
	}
	if p.quiet {
		p.report.always("price: %s", inWords(&payment.Offer)) // nobody agrees to what is not shown
	}
	return p.ask(ctx, open)
}

// openDoubts are the doubts that the flags have not dispelled.
func (p *pay) openDoubts(o client.Offer) []client.Doubt {
	var open []client.Doubt
	for _, d := range o.Doubts {
		if !p.yes || d.Kind == client.UnknownAsset || d.Kind == client.OtherOrigin {
			open = append(open, d)
		}
	}
	return open
}

// notAgreed refuses, and tells how to agree.
func notAgreed(payment *client.Payment, open []client.Doubt) error {
	o := payment.Offer
	o.Doubts = open
	var hints []string
	for _, d := range open {
		hint := "raise it with --max, or agree with --yes"
		switch d.Kind {
		case client.UnknownAsset:
			hint = fmt.Sprintf("agree with --max '%s %s/%s'", o.Requirement.Amount, o.Network.CAIP2, o.Asset.Address)
		case client.OtherOrigin:
			hint = "if you mean it, ask for " + bare(payment.Challenge.URL)
		}
		if !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	return fmt.Errorf("%w; %s", &client.DoubtError{Offer: o}, strings.Join(hints, "; "))
}

// ask asks whoever sits at the terminal.
func (p *pay) ask(ctx context.Context, open []client.Doubt) error {
	for _, d := range open {
		p.report.always("%s", d.Text)
	}
	p.report.prompt("pay it? [y/N] ")
	answer := make(chan string, 1)
	go func() { // reading a terminal cannot be interrupted
		line, _ := bufio.NewReader(io.LimitReader(p.in, 100)).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return errDeclined
	case said := <-answer:
		if said == "y" || said == "yes" {
			return nil
		}
		return errDeclined
	}
}

// show writes what would be signed and sent, but for the signature.
func (p *pay) show(payment *client.Payment) error {
	header, object, err := payment.Preview()
	if err != nil {
		return err
	}
	shown := struct {
		TypedData client.TypedData `json:"typedData"`
		Header    string           `json:"header"`
		Payment   jsontext.Value   `json:"payment"`
	}{payment.TypedData(), header, object}
	b, err := json.MarshalIndent(shown, "", "  ")
	if err != nil {
		return fmt.Errorf("showing the payment: %w", err)
	}
	if _, err := fmt.Fprintf(p.out, "%s\n", escapeJSON(b)); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	if payment.Payer == "" {
		p.report.line("there is no key yet: the payer is shown as zero")
	}
	if open := p.openDoubts(payment.Offer); len(open) > 0 {
		return notAgreed(payment, open)
	}
	return errDryRun
}
