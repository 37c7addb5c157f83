package commands

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// shown is a payment as it is printed. It has neither the signature nor the
// kept answer: the one is money, the other is the payer's.
type shown struct {
	ID          string `json:"id"`
	State       string `json:"state"`
	Created     string `json:"created"`
	Updated     string `json:"updated"`
	Payer       string `json:"payer"`
	PayTo       string `json:"pay_to"`
	Network     string `json:"network"`
	Asset       string `json:"asset"`
	Amount      string `json:"amount"` // atomic units
	Price       string `json:"price"`  // for people
	Method      string `json:"method"`
	Host        string `json:"host"`
	URL         string `json:"url"`
	Identifier  string `json:"identifier,omitzero"`
	Facilitator string `json:"facilitator,omitzero"`
	Transaction string `json:"transaction,omitzero"`
	Reason      string `json:"reason,omitzero"`
	Status      int    `json:"upstream_status,omitzero"`
	Runs        int    `json:"runs,omitzero"`
	Doubt       bool   `json:"doubt,omitzero"`
	ValidBefore string `json:"valid_before,omitzero"`
}

func show(p ledger.Payment) shown {
	s := shown{
		ID: p.ID, State: string(p.State), Created: stamp(p.Created), Updated: stamp(p.Updated),
		Payer: p.Payer, PayTo: p.PayTo, Network: p.Network, Asset: p.Asset, Amount: p.Amount, Price: p.Amount + " of " + p.Asset,
		Method: p.Method, Host: p.Host, URL: strings.ToValidUTF8(p.URL, "\uFFFD"), Identifier: p.Identifier,
		Facilitator: p.Facilitator, Transaction: p.Transaction, Reason: p.Reason, Status: p.Status, Runs: p.Runs, Doubt: p.Doubt,
	}
	if !p.ValidBefore.IsZero() {
		s.ValidBefore = stamp(p.ValidBefore)
	}
	if a, ok := money.FindAsset(p.Network, p.Asset); ok {
		s.Price = money.FormatAtomic(p.Amount, a.Decimals) + " " + a.Symbol
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func printTable(out io.Writer, rows iter.Seq2[ledger.Payment, error]) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tCREATED\tSTATE\tPRICE\tPAYER\tREQUEST\tTRANSACTION")
	for row, err := range rows {
		if err != nil {
			return err
		}
		s := show(row)
		cells := []string{short(s.ID, 12), s.Created, s.State, s.Price, s.Payer, s.Method + " " + s.Host + s.URL, s.Transaction}
		for i := range cells {
			cells[i] = clean(cells[i])
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// printJSON prints one object a line, so that a long list needs no memory.
func printJSON(out io.Writer, rows iter.Seq2[ledger.Payment, error]) error {
	for row, err := range rows {
		if err != nil {
			return err
		}
		line, err := json.Marshal(show(row))
		if err != nil {
			return err
		}
		if _, err := out.Write(append(escapeJSON(line), '\n')); err != nil {
			return err
		}
	}
	return nil
}

func printCSV(out io.Writer, rows iter.Seq2[ledger.Payment, error]) error {
	w := csv.NewWriter(out)
	if err := w.Write([]string{
		"id", "state", "created", "updated", "payer", "pay_to", "network", "asset", "amount", "price", "method", "host", "url",
		"identifier", "facilitator", "transaction", "reason", "upstream_status", "runs",
	}); err != nil {
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		s := show(row)
		if err := w.Write([]string{
			s.ID, s.State, s.Created, s.Updated, inert(s.Payer), inert(s.PayTo), inert(s.Network), inert(s.Asset), inert(s.Amount), inert(s.Price), inert(s.Method), inert(s.Host), inert(s.URL),
			inert(s.Identifier), inert(s.Facilitator), inert(s.Transaction), inert(s.Reason), strconv.Itoa(s.Status), strconv.Itoa(s.Runs),
		}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// inert keeps a spreadsheet from taking a payer's text for a formula, and a
// terminal from obeying it. JSON has it to the letter.
func inert(s string) string {
	s = strip(s)
	if strings.IndexAny(strings.TrimLeft(s, " "), "=+-@＝＋－＠") == 0 {
		return "'" + s
	}
	return s
}

func short(s string, n int) string { return s[:min(n, len(s))] }

// findPayment returns the payment whose id begins so.
func findPayment(ctx context.Context, book reader, id string) (ledger.Payment, int, error) {
	found, err := book.Begins(ctx, strings.ToLower(id))
	switch {
	case err != nil:
		return ledger.Payment{}, exitFailure, err
	case len(found) == 0:
		return ledger.Payment{}, exitNoPayment, fmt.Errorf("there is no payment %q", clean(id))
	case len(found) > 1:
		return ledger.Payment{}, exitUsage, fmt.Errorf("several payments begin with %q; give more of the id", clean(id))
	}
	return found[0], exitOK, nil
}

// tell prints the story of a payment.
func tell(p ledger.Payment, out io.Writer) {
	s := show(p)
	lines := []string{
		"payment " + s.ID,
		"",
		s.Created + "  " + s.Payer + " came with an authorization of " + s.Price + " on " + s.Network,
		"                      for " + clean(s.Method+" "+s.Host+s.URL) + ", payable to " + s.PayTo,
	}
	if s.ValidBefore != "" {
		lines = append(lines, "                      good until "+s.ValidBefore)
	}
	if s.Identifier != "" {
		lines = append(lines, "                      under the identifier "+s.Identifier)
	}
	if s.Facilitator != "" {
		lines = append(lines, "                      facilitator: "+s.Facilitator)
	}
	if s.Transaction != "" {
		lines = append(lines, "                      transaction: "+s.Transaction)
	}
	if s.Reason != "" {
		lines = append(lines, "                      reason: "+clean(s.Reason))
	}
	if s.Runs > 0 {
		lines = append(lines, "                      the upstream was started "+howOften(s.Runs)+"; its last status was "+strconv.Itoa(s.Status))
	}
	lines = append(lines, s.Updated+"  "+meaning(p))
	for _, line := range lines {
		_, _ = fmt.Fprintln(out, strip(line))
	}
}

// howOften counts in words.
func howOften(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// meaning says in words where a payment stands, and what is to be done.
func meaning(p ledger.Payment) string {
	switch p.State {
	case ledger.Claimed:
		return "claimed: a request holds it; no money has moved"
	case ledger.Settling:
		return "settling: the facilitator is being asked to move the money"
	case ledger.Settled:
		return "settled: the money is yours, the goods have not arrived; the payer can fetch them"
	case ledger.Delivering:
		return "delivering: the money is yours, the goods are on their way"
	case ledger.Delivered:
		if p.Reason == ledger.ReasonReverted {
			return "delivered: the payer has the goods, and a reorganisation of the chain took the money back"
		}
		return "delivered: the money is yours, the payer has the goods"
	case ledger.Released:
		return "released: no money has moved"
	case ledger.Refused:
		return "refused: no money has moved"
	case ledger.Unknown:
		if !p.ValidBefore.IsZero() && time.Now().After(p.ValidBefore) {
			return "unknown: the money may have moved, and cannot any more; look for it on the chain, or give the facilitator an rpc"
		}
		return "unknown: the money may have moved; the gateway keeps asking"
	}
	return string(p.State)
}
