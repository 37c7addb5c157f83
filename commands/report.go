package commands

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/shopspring/decimal"
	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// reportFlags are the flags of caddy paywall report.
type reportFlags struct {
	source
	since, until string
	by, format   string
	html         string
	exclude      []string
}

func newReportCommand() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report [flags]",
		Short: "Says who asks for what has a price, what that would be worth, and what was earned",
		Long: `Sums up what a gateway has counted, while it runs or not: requests for what has a
price, by client, line, site or day. A site with the word observe needs no more for
that. It only reads; what was asked in the last 20 seconds may be missing.

VERIFIED is the part that proved who it is; whoever else only says so. WORTH is
what all those requests would cost, EARNED what was paid. Amounts are never
rounded. Days and hours are UTC; hours are kept for 40 days, days for ever.

Times are how long ago (7d, 24h) or dates in UTC: 2026-11-01, 2026-11-01T12:00.

Exit codes: 0 done, 1 the counts cannot be read, 2 usage.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit(cmd, exitUsage, fmt.Errorf("%q is too much; see --help", clean(args[0])))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	flags := cmd.Flags()
	f.addTo(flags)
	flags.StringVar(&f.since, "since", "", "only what was asked since this `time`")
	flags.StringVar(&f.until, "until", "", "only what was asked before this `time`")
	flags.StringVar(&f.by, "by", "client", "sum up by client, line, site, day or outcome")
	flags.StringVar(&f.format, "format", "table", "`how` to print: table, json or csv")
	flags.StringVar(&f.html, "html", "", "write a page with plots to this `file`, instead of printing")
	flags.StringSliceVar(&f.exclude, "exclude", nil, "leave out what these `payers` have paid, such as your own wallets (with --by day or outcome)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		code, err := f.run(cmd.Context(), cmd.OutOrStdout(), time.Now().UTC()) // as the days are that it counts
		return exit(cmd, code, err)
	}
	return cmd
}

// group is what is summed up under one label.
type group struct {
	Label      string `json:"label"`
	Kind       string `json:"kind,omitzero"`
	Asked      int64  `json:"asked"`
	Verified   int64  `json:"verified"`
	Observed   int64  `json:"observed"`
	Challenged int64  `json:"challenged"`
	Paid       int64  `json:"paid"`
	Delivered  int64  `json:"delivered"`
	Worth      sums   `json:"worth"`
	Earned     sums   `json:"earned"`
}

// sums are amounts by what they are in.
type sums map[string]decimal.Decimal

func (s sums) add(unit string, amount decimal.Decimal) {
	if !amount.IsZero() {
		s[unit] = s[unit].Add(amount)
	}
}

// String writes amounts as people do, dollars first.
func (s sums) String() string {
	var all []string
	for _, unit := range s.units() {
		all = append(all, s[unit].String()+" "+phrase(unit))
	}
	if len(all) == 0 {
		return "0"
	}
	return strings.Join(all, " + ")
}

const usd = "USD"

// units are what there are amounts of, dollars first.
func (s sums) units() []string {
	return slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		switch {
		case a == usd:
			return -1
		case b == usd:
			return 1
		}
		return cmp.Compare(a, b)
	})
}

func (g *group) add(row traffic.Row) {
	g.Asked += row.Asked
	if row.Proof == "verified" {
		g.Verified += row.Asked
	}
	g.Observed += row.Observed
	g.Challenged += row.Challenged
	g.Paid += row.Paid
	g.Delivered += row.Delivered
	g.Worth.add(row.Unit, row.Worth)
	g.Earned.add(row.Unit, row.Earned)
}

// summary is what is printed.
type summary struct {
	By     string  `json:"by"`
	Since  string  `json:"since,omitzero"`
	Until  string  `json:"until,omitzero"`
	Groups []group `json:"groups"`
	Total  group   `json:"total"`
}

// labels say under what a row is summed up.
var labels = map[string]func(traffic.Row) (label, kind string){
	"client": func(r traffic.Row) (string, string) {
		switch {
		case r.Name != "":
			return r.Name, r.Kind
		case r.Proof == "browser":
			return "(browsers, or who says so)", ""
		}
		return "(" + cmp.Or(r.Proof, "unknown") + ")", ""
	},
	"line":    func(r traffic.Row) (string, string) { return r.Site + " " + r.Line, "" },
	"site":    func(r traffic.Row) (string, string) { return r.Site, "" },
	"day":     func(r traffic.Row) (string, string) { return r.Hour.Format(time.DateOnly), "" },
	"outcome": func(traffic.Row) (string, string) { return "", "" },
}

func (f reportFlags) run(ctx context.Context, out io.Writer, now time.Time) (int, error) {
	label, ok := labels[f.by]
	if !ok {
		return exitUsage, fmt.Errorf("--by: want client, line, site, day or outcome, not %q", f.by)
	}
	print, ok := map[string]func(io.Writer, summary) error{"table": printSummary, "json": summaryJSON, "csv": summaryCSV}[f.format]
	if !ok {
		return exitUsage, fmt.Errorf("--format: want table, json or csv, not %q", f.format)
	}
	if len(f.exclude) > 0 && f.by != "day" && f.by != "outcome" {
		return exitUsage, errors.New("--exclude: counts know no payers, only days; use it with --by day or --by outcome")
	}
	var q traffic.Query
	var err error
	if q.Since, err = parseTime("--since", f.since, now); err != nil {
		return exitUsage, err
	}
	if q.Until, err = parseTime("--until", f.until, now); err != nil {
		return exitUsage, err
	}
	if !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return exitUsage, errors.New("--since is not before --until")
	}
	if cut := q.Until.Truncate(time.Hour); !cut.Equal(q.Until) {
		q.Until = cut.Add(time.Hour) // of which nothing is kept apart
	}
	book, err := f.openTraffic()
	if err != nil {
		return exitFailure, err
	}
	defer book.Close() //nolint:errcheck // it was only read
	made, err := sumUp(book.Rows(ctx, q), f.by, label)
	if err != nil {
		return exitFailure, err
	}
	if !q.Since.IsZero() {
		made.Since = stamp(q.Since)
	}
	if !q.Until.IsZero() {
		made.Until = stamp(q.Until)
	}
	if len(f.exclude) > 0 {
		if err := f.leaveOut(ctx, &made, q); err != nil {
			return exitFailure, err
		}
	}
	if f.by == "outcome" {
		made.Groups = outcomes(made.Total)
	}
	if f.html == "" {
		err = print(out, made)
	} else if err = writePage(f.html, made); err == nil {
		_, err = fmt.Fprintf(out, "wrote %s\n", clean(f.html))
	}
	if err != nil {
		return exitFailure, err
	}
	return exitOK, nil
}

// sumUp sums up rows, the most asked for first, or the days in their order.
func sumUp(rows iter.Seq2[traffic.Row, error], by string, label func(traffic.Row) (string, string)) (summary, error) {
	made := summary{By: by, Total: newGroup("total", "")}
	groups := map[string]*group{}
	for row, err := range rows {
		if err != nil {
			return made, err
		}
		name, kind := label(row)
		g := groups[name]
		if g == nil {
			fresh := newGroup(name, kind)
			g = &fresh
			groups[name] = g
		}
		g.add(row)
		made.Total.add(row)
	}
	for _, g := range groups {
		made.Groups = append(made.Groups, *g)
	}
	slices.SortFunc(made.Groups, func(a, b group) int {
		if by == "day" {
			return cmp.Compare(a.Label, b.Label)
		}
		return cmp.Or(cmp.Compare(b.Asked, a.Asked), cmp.Compare(a.Label, b.Label))
	})
	return made, nil
}

func newGroup(label, kind string) group {
	return group{Label: label, Kind: kind, Worth: sums{}, Earned: sums{}}
}

// outcomes are the steps from asking to getting.
func outcomes(total group) []group {
	of := func(label string, n int64) group {
		g := newGroup(label, "")
		g.Asked = n
		return g
	}
	asked, paid := of("asked", total.Asked), of("paid", total.Paid)
	asked.Worth, paid.Earned = total.Worth, total.Earned
	other := max(0, total.Asked-total.Observed-total.Challenged-total.Paid)
	return []group{asked, of("observed", total.Observed), of("challenged", total.Challenged), paid, of("answered otherwise", other), of("delivered", total.Delivered)}
}

// step is what is printed of an outcome, to which the other counts mean nothing.
type step struct {
	Label    string `json:"label"`
	Requests int64  `json:"requests"`
	Worth    sums   `json:"worth,omitempty"`
	Earned   sums   `json:"earned,omitempty"`
}

func steps(groups []group) (all []step) {
	for _, g := range groups {
		all = append(all, step{g.Label, g.Asked, g.Worth, g.Earned})
	}
	return all
}

// leaveOut takes away what some payers have paid, by what the ledger has of them.
func (f reportFlags) leaveOut(ctx context.Context, made *summary, q traffic.Query) error {
	book, err := f.openLedger(ctx)
	if err != nil {
		return fmt.Errorf("looking for the payers in the ledger: %w", err)
	}
	defer book.Close() //nolint:errcheck // it was only read
	byDay := map[string]*group{}
	for i := range made.Groups {
		byDay[made.Groups[i].Label] = &made.Groups[i]
	}
	payers := map[string]bool{}
	for _, payer := range f.exclude {
		if common.IsHexAddress(payer) {
			payer = common.HexToAddress(payer).Hex() // as the ledger spells it
		}
		payers[payer] = true
	}
	for payer := range payers {
		filter := ledger.Filter{
			Payer: payer, Since: q.Since.Truncate(time.Hour), Until: q.Until, Brief: true,
			States: []ledger.State{ledger.Settled, ledger.Delivering, ledger.Delivered},
		}
		for row, err := range book.Newest(ctx, filter) {
			if err != nil {
				return err
			}
			for _, g := range []*group{&made.Total, byDay[row.Created.UTC().Format(time.DateOnly)]} {
				if g != nil {
					g.leaveOut(row)
				}
			}
		}
	}
	return nil
}

func (g *group) leaveOut(row ledger.Payment) {
	asset, ok := money.FindAsset(row.Network, row.Asset)
	if !ok || g.Paid == 0 {
		return
	}
	amount, err := decimal.NewFromString(money.FormatAtomic(row.Amount, asset.Decimals))
	if err != nil {
		return
	}
	unit := strings.ToUpper(asset.Symbol)
	if asset.PegUSD {
		unit = usd
	}
	g.Paid--
	if row.State == ledger.Delivered && g.Delivered > 0 {
		g.Delivered--
	}
	g.Earned.add(unit, amount.Neg())
}

// maxBar is how long the longest bar is.
const maxBar = 24

func printSummary(out io.Writer, r summary) error {
	if r.Total.Asked == 0 {
		_, err := fmt.Fprintln(out, "nothing with a price was asked for, of what the flags select")
		return err
	}
	screen, _ := out.(*os.File)
	bars := screen != nil && isTerminal(screen)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	heading := map[string]string{"client": "CLIENT\tKIND", "line": "LINE", "site": "SITE", "day": "DAY", "outcome": "OUTCOME"}[r.By]
	columns := "\tREQUESTS\tVERIFIED\tWORTH\tCHALLENGED\tPAID\tDELIVERED\tEARNED"
	if r.By == "outcome" {
		columns = "\tREQUESTS\tWORTH\tEARNED"
	}
	_, _ = fmt.Fprintln(w, heading+columns)
	most := int64(1)
	for _, g := range r.Groups {
		most = max(most, g.Asked)
	}
	line := func(g group, bar bool) {
		cells := []string{phrase(g.Label)}
		if r.By == "client" {
			cells = append(cells, cmp.Or(phrase(g.Kind), "-"))
		}
		if r.By == "outcome" {
			cells = append(cells, count(g.Asked), dash(g.Worth.String()), dash(g.Earned.String()))
		} else {
			cells = append(cells, count(g.Asked), percent(g.Verified, g.Asked), g.Worth.String(),
				count(g.Challenged), count(g.Paid), count(g.Delivered), g.Earned.String())
		}
		if bars && bar {
			cells = append(cells, strings.Repeat("█", int((g.Asked*maxBar+most-1)/most)))
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	for _, g := range r.Groups {
		line(g, true)
	}
	if r.By != "outcome" {
		line(r.Total, false)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "0" {
		return "-"
	}
	return s
}

// percent is a part in whole percent, rounded down: all of it is 100 %, and nothing less.
func percent(part, all int64) string {
	if all == 0 {
		return "-"
	}
	return strconv.FormatInt(part*100/all, 10) + " %"
}

func summaryJSON(out io.Writer, r summary) error {
	if r.Groups == nil {
		r.Groups = []group{}
	}
	var what any = r
	if r.By == "outcome" {
		what = struct {
			summary
			Groups []step `json:"groups"`
		}{r, steps(r.Groups)}
	}
	text, err := json.Marshal(what, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	_, err = out.Write(append(escapeJSON(text), '\n'))
	return err
}

// summaryCSV has a line for each label and unit, so that amounts stay numbers.
func summaryCSV(out io.Writer, r summary) error {
	w := csv.NewWriter(out)
	names := []string{"kind", "asked", "verified", "observed", "challenged", "paid", "delivered"}
	cells := func(g group) []string {
		return []string{inert(g.Kind), count(g.Asked), count(g.Verified), count(g.Observed), count(g.Challenged), count(g.Paid), count(g.Delivered)}
	}
	if r.By == "outcome" {
		names = []string{"requests"}
		cells = func(g group) []string { return []string{count(g.Asked)} }
	}
	if err := w.Write(slices.Concat([]string{r.By}, names, []string{"unit", "worth", "earned"})); err != nil {
		return err
	}
	for _, g := range r.Groups {
		units := maps.Clone(g.Worth)
		maps.Copy(units, g.Earned)
		if len(units) == 0 {
			units[usd] = decimal.Zero
		}
		worth, earned := g.Worth, g.Earned
		for i, unit := range units.units() {
			if i > 0 {
				g = newGroup(g.Label, g.Kind) // the counts are in the first line
				g.Worth, g.Earned = worth, earned
			}
			line := slices.Concat([]string{inert(g.Label)}, cells(g), []string{inert(unit), g.Worth[unit].String(), g.Earned[unit].String()})
			if err := w.Write(line); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}

func count(n int64) string { return strconv.FormatInt(n, 10) }
