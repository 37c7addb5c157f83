// Package commands is the command line of the paywall: caddy paywall ….
//
// Each subcommand has a file of its own, and a line in subcommands.
package commands

import (
	"errors"
	"fmt"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// subcommands make the subcommands of caddy paywall.
var subcommands = []func() *cobra.Command{
	newPayCommand,
	newPaymentsCommand,
	newReportCommand,
	newValidateCommand,
	newCheckCommand,
	newPricesCommand,
	newKeyCommand,
	newCrawlersCommand,
}

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:      "paywall",
		Usage:     "<command>",
		Short:     "Pays for what is behind a paywall, shows what was paid, and looks for holes",
		Long:      "Commands for who sells with the paywall, and for who buys. Each explains itself with --help.",
		CobraFunc: addSubcommands,
	})
}

func addSubcommands(parent *cobra.Command) {
	for _, newCommand := range subcommands {
		parent.AddCommand(newCommand())
	}
	parent.SilenceErrors = true
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return exit(cmd, exitUsage, fmt.Errorf("there is no command %q; see %s --help", clean(args[0]), cmd.CommandPath()))
	}
}

// exit ends a command with an exit code, after its last words on stderr. Caddy
// makes exit codes above 1 of what its own wrapper returns, and of nothing else.
func exit(cmd *cobra.Command, code int, err error) error {
	if err != nil {
		// Joined errors are one to a line.
		cmd.PrintErrf("%s: %s\n", cmd.CommandPath(), clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if code == exitFailure {
		return errors.New("failed") // printed above, and silenced
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}
