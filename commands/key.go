package commands

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/client"
)

const keyNewHelp = `Makes a new key for an account on EVM chains, for who pays or for the gas of the
embedded facilitator, and prints the address of the account. The key itself is
never printed: it is in the file, which only you can read, and which is never
overwritten.

Whoever has the file has the money of the account, and without it nobody has.
Keep a copy where you keep secrets, and no more in the account than it needs.

To pay with it, send the account the token that the seller accepts (no gas is needed):

  caddy paywall pay --key-file FILE URL

To settle with it, send the account some of the chain's own coin for gas, and make the
user that Caddy runs as the owner of the file:

  facilitator own evm {
  	network base {
  		rpc    https://…
  		signer {file./absolute/path/FILE}
  	}
  }

EXIT CODES

  0  made
  1  the file is there already, or cannot be written
  2  wrong usage`

func newKeyCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:           "key <command>",
		Short:         "Makes keys for payers and for gas",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return exit(cmd, exitUsage, fmt.Errorf("there is no command %q; see %s --help", clean(args[0]), cmd.CommandPath()))
	}
	var out string
	create := &cobra.Command{
		Use:           "new [--out FILE]",
		Short:         "Makes a new key in a file, and prints its address",
		Long:          keyNewHelp,
		Example:       "  caddy paywall key new --out payer.key",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit(cmd, exitUsage, fmt.Errorf("unexpected %q; give the file with --out", clean(args[0])))
			}
			return nil
		},
	}
	create.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	create.Flags().StringVarP(&out, "out", "o", "paywall.key", "the new `file` for the key")
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return exit(cmd, exitUsage, fmt.Errorf("--out: an empty name is no file"))
		}
		key, err := client.CreateKeyFile(out)
		if err != nil {
			return exit(cmd, exitFailure, err)
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), key.Address()); err != nil {
			return exit(cmd, exitFailure, fmt.Errorf("printing: %w", err))
		}
		cmd.PrintErrf("the key is in %s; see %s --help for what to do with it\n", clean(out), cmd.CommandPath())
		return nil
	}
	parent.AddCommand(create)
	return parent
}
