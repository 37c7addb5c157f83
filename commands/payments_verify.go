package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// exitDamaged: the ledger is damaged.
const exitDamaged = 4

func newVerifyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify [--file <ledger>]",
		Short: "Looks whether a SQLite ledger is damaged",
		Long: `Looks through a whole SQLite ledger, while the gateway runs or not: SQLite's
structure, its indexes, and the checksum of each payment. It says how many payments
are damaged, and which, by their ids. It only reads. The gateway does the same when
it starts.

Exit codes: 0 all is whole, 1 it cannot be read at all, 2 usage, 4 it is damaged.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return exit(cmd, exitUsage, errors.New("give the file with --file; see --help"))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	cmd.Flags().StringVar(&file, "file", "", "the `file` of the SQLite ledger (default: where Caddy keeps it)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		code, err := verifyLedger(cmd.Context(), file, cmd.OutOrStdout())
		return exit(cmd, code, err)
	}
	return cmd
}

func verifyLedger(ctx context.Context, file string, out io.Writer) (int, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	book, err := openSQLite(file)
	if err != nil {
		return exitFailure, err
	}
	defer book.Close() //nolint:errcheck // it was only read
	found, err := book.Verify(ctx)
	if err != nil {
		return exitFailure, err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d payments are as they were written\n", found.Payments)
	for _, id := range found.Unreadable {
		fmt.Fprintf(&text, "unreadable: %s\n", clean(id))
	}
	for _, id := range found.Missing {
		fmt.Fprintf(&text, "missing: %s\n", clean(id))
	}
	for _, says := range found.Says {
		fmt.Fprintf(&text, "SQLite says: %s\n", clean(says))
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return exitFailure, err
	}
	if err := found.Err(); err != nil {
		return exitDamaged, err
	}
	return exitOK, nil
}
