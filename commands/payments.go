package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// paymentsFlags are the flags of caddy paywall payments.
type paymentsFlags struct {
	source
	states            []string
	owed, reverted    bool
	payer, host, path string
	since, until      string
	limit             int
	format            string
}

func newPaymentsCommand() *cobra.Command {
	var f paymentsFlags
	cmd := &cobra.Command{
		Use:   "payments [flags] [<payment id>]",
		Short: "Lists what was paid, and tells the story of one payment",
		Long: `Lists the payments in a ledger, newest first, while the gateway runs or not. It
only reads.

With a payment's id, as logs have it (the first characters are enough), it tells
all that is known of that payment.

What a seller should look at: --owed lists what was paid for, or may have been,
and not delivered; --reverted what was delivered and whose money a reorganisation
of the chain took back.

Times are how long ago (7d, 24h, 90m) or dates: 2026-11-01, 2026-11-01T12:00, in the
time zone of this machine unless they name one (2026-11-01T12:00:00Z).

backup writes a copy of a SQLite ledger, and verify looks whether one is damaged; see
their own help.

Exit codes: 0 done, 1 the ledger cannot be read, 2 usage, 3 no such payment.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit(cmd, exitUsage, errors.New("give one payment id at most; see --help"))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	cmd.AddCommand(newBackupCommand(), newVerifyCommand())
	flags := cmd.Flags()
	f.addTo(flags)
	flags.StringSliceVar(&f.states, "state", nil, "only these `states`: "+strings.Join(stateNames(), ", "))
	flags.BoolVar(&f.owed, "owed", false, "only what was paid for, or may have been, and not delivered")
	flags.BoolVar(&f.reverted, "reverted", false, "only what was delivered and whose money the chain took back")
	flags.StringVar(&f.payer, "payer", "", "only this payer's `address`")
	flags.StringVar(&f.host, "host", "", "only this `host`")
	flags.StringVar(&f.path, "path", "", "only URLs that begin with this `path`")
	flags.StringVar(&f.since, "since", "", "only payments made since this `time`")
	flags.StringVar(&f.until, "until", "", "only payments made before this `time`")
	flags.IntVar(&f.limit, "limit", 0, "at most this many (`n`), the newest")
	flags.StringVar(&f.format, "format", "table", "`how` to print: table, json or csv")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code, err := listPayments(cmd.Context(), f, args, cmd.OutOrStdout(), time.Now())
		return exit(cmd, code, err)
	}
	return cmd
}

func stateNames() []string {
	var names []string
	for _, s := range ledger.States() {
		names = append(names, string(s))
	}
	return names
}

// exitNoPayment: there is no payment of that id.
const exitNoPayment = 3

// reader is a ledger that is only read.
type reader interface {
	// Newest returns the rows that the filter selects, newest first.
	Newest(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error]
	// Begins returns the payments whose ID begins so, at most a few of many.
	Begins(ctx context.Context, id string) ([]ledger.Payment, error)
	io.Closer
}

func listPayments(ctx context.Context, f paymentsFlags, args []string, out io.Writer, now time.Time) (int, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	filter, err := f.filter(now)
	if err != nil {
		return exitUsage, err
	}
	print, ok := map[string]func(io.Writer, iter.Seq2[ledger.Payment, error]) error{
		"table": printTable, "json": printJSON, "csv": printCSV,
	}[f.format]
	if !ok {
		return exitUsage, fmt.Errorf("--format: want table, json or csv, not %q", f.format)
	}
	if len(args) == 1 && strings.ContainsAny(args[0], `/\.`) {
		return exitUsage, fmt.Errorf("%q is no payment id; if it is the file of the ledger, give it with --file", clean(args[0]))
	}
	book, err := f.openLedger(ctx)
	if err != nil {
		return exitFailure, err
	}
	defer book.Close() //nolint:errcheck // it was only read
	if len(args) == 1 {
		p, code, err := findPayment(ctx, book, args[0])
		if err != nil {
			return code, err
		}
		if f.format == "table" {
			tell(p, out)
			return exitOK, nil
		}
		if err := print(out, func(yield func(ledger.Payment, error) bool) { yield(p, nil) }); err != nil {
			return exitFailure, err
		}
		return exitOK, nil
	}
	if f.owed && f.format == "table" {
		print = f.printOwed
	}
	if err := print(out, f.matching(book.Newest(ctx, filter))); err != nil {
		return exitFailure, err
	}
	return exitOK, nil
}

// printOwed prints a table, or that nothing belongs there: who looks for what is
// owed must not have to guess whether an empty table is one.
func (f paymentsFlags) printOwed(out io.Writer, rows iter.Seq2[ledger.Payment, error]) error {
	var table bytes.Buffer
	found := false
	if err := printTable(&table, func(yield func(ledger.Payment, error) bool) {
		for p, err := range rows {
			found = true
			if !yield(p, err) {
				return
			}
		}
	}); err != nil {
		return err
	}
	if !found {
		table.Reset()
		table.WriteString("nothing is owed")
		if f.payer+f.host+f.path+f.since+f.until != "" {
			table.WriteString(", of what the flags select")
		}
		table.WriteString("\n")
	}
	_, err := table.WriteTo(out)
	return err
}

// filter is what the ledger itself can select.
func (f paymentsFlags) filter(now time.Time) (ledger.Filter, error) {
	payer := f.payer
	if common.IsHexAddress(payer) {
		payer = common.HexToAddress(payer).Hex() // as the ledger spells it
	}
	filter := ledger.Filter{Payer: payer, Host: strings.ToLower(f.host)}
	for _, s := range f.states {
		if !slices.Contains(stateNames(), s) {
			return filter, fmt.Errorf("--state: there is no state %q; there are %s", s, strings.Join(stateNames(), ", "))
		}
		filter.States = append(filter.States, ledger.State(s))
	}
	if f.reverted {
		if len(f.states) > 0 || f.owed {
			return filter, errors.New("--reverted stands without --owed and --state")
		}
		filter.States = []ledger.State{ledger.Delivered}
	}
	if f.owed {
		if len(f.states) > 0 {
			return filter, errors.New("--owed and --state exclude each other")
		}
		for _, s := range ledger.States() {
			if s.Open() {
				filter.States = append(filter.States, s)
			}
		}
	}
	var err error
	if filter.Since, err = parseTime("--since", f.since, now); err != nil {
		return filter, err
	}
	if filter.Until, err = parseTime("--until", f.until, now); err != nil {
		return filter, err
	}
	if f.limit < 0 {
		return filter, fmt.Errorf("--limit: %d is negative", f.limit)
	}
	if f.path == "" && !f.reverted {
		filter.Limit = f.limit // else the limit counts what matching leaves
	}
	return filter, nil
}

// parseTime reads a moment, or how long ago it was. A day without a time begins at
// midnight, and what names no time zone is in that of now.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%s: want how long ago, such as 7d or 24h, or a time such as 2026-11-01, 2026-11-01T12:00 or 2026-11-23T12:00:00Z, not %q", flag, s)
}

// matching leaves what the flags select and the ledger cannot.
func (f paymentsFlags) matching(rows iter.Seq2[ledger.Payment, error]) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		n := 0
		for row, err := range rows {
			if err == nil && (!strings.HasPrefix(row.URL, f.path) || f.reverted && row.Reason != ledger.ReasonReverted) {
				continue
			}
			if !yield(row, err) || err != nil {
				return
			}
			if n++; f.limit > 0 && n == f.limit {
				return
			}
		}
	}
}
