package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"
)

func newBackupCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "backup [--file <ledger>] <copy>",
		Short: "Copies a SQLite ledger to a new file",
		Long: `Copies a SQLite ledger to a new file, as it is at one moment, while the gateway
runs or not. The copy is one file, on disk when the command ends, readable to its
owner alone: it has the signatures of payments that are under way. A file that is
there is not overwritten.

To restore it, stop Caddy, move all files of the ledger (payments.db*) away, and
put the copy in the place of payments.db.

PostgreSQL has tools of its own.

Exit codes: 0 done, 1 no copy was made, 2 usage.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit(cmd, exitUsage, errors.New("give the name of the copy; see --help"))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	cmd.Flags().StringVar(&file, "file", "", "the `file` of the SQLite ledger (default: where Caddy keeps it)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code, err := backup(cmd.Context(), file, args[0], cmd.OutOrStdout())
		return exit(cmd, code, err)
	}
	return cmd
}

func backup(ctx context.Context, file, to string, out io.Writer) (int, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	book, err := openSQLite(file)
	if err != nil {
		return exitFailure, err
	}
	defer book.Close() //nolint:errcheck // it was only read
	err = book.Backup(ctx, to)
	if errors.Is(err, fs.ErrExist) {
		return exitFailure, fmt.Errorf("nothing is overwritten: %w", err)
	}
	if err != nil {
		return exitFailure, err
	}
	_, err = fmt.Fprintf(out, "copied to %s\n", clean(to))
	if err != nil {
		return exitFailure, err
	}
	return exitOK, nil
}
