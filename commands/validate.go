package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

const validateHelp = `Checks a config without running it: all that "caddy validate" checks, and besides
whether its routes leave a gate open. Something that answers a priced path before
the paywall, a cache before it, an error route that serves what is priced, or two
blocks that should be one are errors, and such a config does not start either.
What may be meant so is a warning.

It provisions the config as "caddy validate" does: environment variables and
files that the config names must be there. It asks nobody anything.

EXIT CODES

  0  the config is sound, perhaps with warnings
  1  the config cannot be read, adapted or loaded
  2  wrong usage
  3  the config would run with a gate open, or with prices that never count`

// exitOpen: something can be had without paying.
const exitOpen = 3

// validateFlags are the flags of caddy paywall validate.
type validateFlags struct {
	config, adapter, format string
}

func newValidateCommand() *cobra.Command {
	var f validateFlags
	cmd := &cobra.Command{
		Use:           "validate --config FILE [--adapter NAME]",
		Short:         "Checks a config, and whether its routes leave a gate open",
		Long:          validateHelp,
		Example:       "  caddy paywall validate --config Caddyfile",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit(cmd, exitUsage, fmt.Errorf("unexpected %q; give the file with --config", clean(args[0])))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "the config `file` (default: Caddyfile in this directory)")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "the `name` of the config adapter, where the file's name does not tell")
	flags.StringVar(&f.format, "format", "text", "`how` to print: text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		code, err := validateConfig(f, cmd.OutOrStdout())
		return exit(cmd, code, err)
	}
	return cmd
}

func validateConfig(f validateFlags, out io.Writer) (int, error) {
	if f.format != "text" && f.format != "json" {
		return exitUsage, fmt.Errorf("--format: want text or json, not %q", f.format)
	}
	raw, config, err := loadConfig(f.config, f.adapter)
	if err != nil {
		return exitFailure, err
	}
	findings, err := routes.Check(config)
	if err != nil {
		return exitFailure, err
	}
	var c *caddy.Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return exitFailure, fmt.Errorf("decoding the config: %w", err)
	}
	if err := caddy.Validate(c); err != nil {
		return exitFailure, err
	}
	if err := printFindings(out, f.format, findings); err != nil {
		return exitFailure, err
	}
	for _, finding := range findings {
		if finding.Severity == routes.Error {
			return exitOpen, errors.New("the config would leave a gate open; it does not start")
		}
	}
	return exitOK, nil
}

// loadConfig reads and adapts a config as Caddy does.
func loadConfig(file, adapter string) ([]byte, *routes.Config, error) {
	raw, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, nil, err
	}
	if len(raw) == 0 {
		return nil, nil, errors.New("no config: give --config FILE")
	}
	config, err := routes.Parse(raw)
	return raw, config, err
}

func printFindings(out io.Writer, format string, findings []routes.Finding) error {
	if format == "json" {
		if findings == nil {
			findings = []routes.Finding{}
		}
		encoder := json.NewEncoder(jsonOutput{out})
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(findings)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(out, "%s: %s [%s]\n", f.Severity, clean(f.String()), f.Rule); err != nil {
			return err
		}
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(out, "the config is sound")
		return err
	}
	return nil
}
