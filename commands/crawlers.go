package commands

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
)

const crawlersHelp = `Lists the crawlers and agents that the crawler matcher knows, with the day on which
the facts were gathered: what each calls itself in the User-Agent, what it gathers
for, who runs it, and how it can be proved that a request is its own:

  addresses  its operator publishes the addresses that it comes from
  host name  the names of its addresses, which its operator confirms in the DNS
  signature  it signs its requests (Web Bot Auth)

Where there is none of these, nobody can prove the claim. What the global paywall
block of a config adds is not shown.

EXIT CODES

  0  printed
  1  cannot be printed
  2  wrong usage`

// crawlersFlags are the flags of caddy paywall crawlers.
type crawlersFlags struct {
	kind, format string
}

func newCrawlersCommand() *cobra.Command {
	var f crawlersFlags
	cmd := &cobra.Command{
		Use:           "crawlers [--kind KIND]",
		Short:         "Lists the crawlers and agents that the crawler matcher knows",
		Long:          crawlersHelp,
		Example:       "  caddy paywall crawlers --kind search",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit(cmd, exitUsage, fmt.Errorf("unexpected %q; for one kind give it with --kind", clean(args[0])))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	flags := cmd.Flags()
	flags.StringVar(&f.kind, "kind", "", "only those of one `kind`: "+crawlers.KindList())
	flags.StringVar(&f.format, "format", "table", "`how` to print: table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.kind != "" && !slices.Contains(crawlers.Kinds(), crawlers.Kind(f.kind)) {
			return exit(cmd, exitUsage, fmt.Errorf("there is no kind %q; there are: %s", clean(f.kind), crawlers.KindList()))
		}
		if f.format != "table" && f.format != "json" {
			return exit(cmd, exitUsage, fmt.Errorf("--format: want table or json, not %q", clean(f.format)))
		}
		date, agents, err := crawlers.Facts()
		if err != nil {
			return exit(cmd, exitFailure, err)
		}
		agents = slices.DeleteFunc(agents, func(c crawlers.Crawler) bool { return f.kind != "" && c.Kind != crawlers.Kind(f.kind) })
		if f.format == "json" {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
				Date   string             `json:"date"`
				Agents []crawlers.Crawler `json:"agents"`
			}{date, agents})
		} else {
			err = printCrawlers(cmd.OutOrStdout(), date, agents)
		}
		if err != nil {
			return exit(cmd, exitFailure, fmt.Errorf("printing: %w", err))
		}
		return nil
	}
	return cmd
}

func printCrawlers(out io.Writer, date string, agents []crawlers.Crawler) error {
	order := crawlers.Kinds()
	slices.SortFunc(agents, func(a, b crawlers.Crawler) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(strings.ToLower(a.Token), strings.ToLower(b.Token)))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "NAME\tKIND\tOPERATOR\tCAN BE VERIFIED BY\n")
	for _, c := range agents {
		var ways []string
		if len(c.Ranges) > 0 {
			ways = append(ways, "addresses")
		}
		if len(c.RDNS) > 0 {
			ways = append(ways, "host name")
		}
		if len(c.Directories) > 0 {
			ways = append(ways, "signature")
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Token, c.Kind, cmp.Or(c.Operator, "-"), cmp.Or(strings.Join(ways, ", "), "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d crawlers and agents, as of %s.\n", len(agents), date)
	return err
}
