package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/check"
	"github.com/caddy-paywall/caddy-paywall/routes"
)

const checkHelp = `Looks at a paywall from outside, as one would who does not want to pay: asks for
priced URLs in many spellings, with other methods and headers, under other host
names, over HTTP/1.1, 2 and 3, and reports what comes that is not a refusal. It
reports too what honest clients stumble over: a challenge that stock clients
cannot pay or read, that is too large or can be cached, a price above what they
pay unasked, a page that loads what is priced.

It never sends a payment. Use it on your own hosts.

With --config it checks all priced lines of that config, with a path made up for
each pattern; a URL without a path is then the origin to check them at, in place
of the one that the config names.

It asks one request at a time, --rate a second, and stops at --max-requests.
Methods that act (POST, PUT, PATCH, DELETE) are sent only where a line of the
config names them, and with --all-methods: where the gate is open, they act.

EXIT CODES

  0  closed, and nothing for clients to stumble over
  1  something failed on this machine, such as reading the config
  2  wrong usage
  3  open: something came without a payment
  4  closed, with warnings, or not all requests could be sent and were answered
  8  a URL could not be reached`

const checkExamples = `  caddy paywall check https://shop.example/articles/1
  caddy paywall check --config Caddyfile
  caddy paywall check --config Caddyfile --connect 10.0.0.7:443 https://shop.example
  caddy paywall check --page https://shop.example/ https://shop.example/pictures/1`

// exitWarnings: nothing is open, but something is not as it should be.
const exitWarnings = 4

// checkFlags are the flags of caddy paywall check.
type checkFlags struct {
	config, adapter, format string
	quiet                   bool
	options                 check.Options
}

func newCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:           "check [flags] URL...",
		Short:         "Looks at a paywall from outside for what can be had without paying",
		Long:          checkHelp,
		Example:       checkExamples,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "check the priced lines of this config `file`")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "the `name` of the config adapter, where the file's name does not tell")
	flags.IntVar(&f.options.Rate, "rate", 20, "the most requests a second")
	flags.IntVar(&f.options.MaxRequests, "max-requests", 2000, "the most requests in all")
	flags.DurationVar(&f.options.Timeout, "timeout", 30*time.Second, "how long to wait for one answer")
	flags.StringVar(&f.options.Connect, "connect", "", "connect to this `address` (host:port), whatever host the URLs name")
	flags.BoolVar(&f.options.Insecure, "insecure", false, "accept any certificate")
	flags.BoolVar(&f.options.AllMethods, "all-methods", false, "send POST, PUT, PATCH and DELETE too")
	flags.StringArrayVar(&f.options.Pages, "page", nil, "a free HTML page, `URL or file`, whose resources must not be priced; repeatable")
	flags.StringVar(&f.format, "format", "table", "`how` to print: table or json")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not say what is done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
		code, err := checkURLs(ctx, f, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		return exit(cmd, code, err)
	}
	return cmd
}

func checkURLs(ctx context.Context, f checkFlags, args []string, out, errOut io.Writer) (int, error) {
	if f.format != "table" && f.format != "json" {
		return exitUsage, fmt.Errorf("--format: want table or json, not %q", f.format)
	}
	if f.options.Rate <= 0 || f.options.MaxRequests <= 0 || f.options.Timeout <= 0 {
		return exitUsage, errors.New("--rate, --max-requests and --timeout must be above zero")
	}
	f.options.Progress = func(format string, args ...any) {
		if !f.quiet {
			_, _ = fmt.Fprintln(errOut, "checking "+clean(fmt.Sprintf(format, args...)))
		}
	}
	targets, code, err := f.targets(args, errOut)
	if err != nil {
		return code, err
	}
	report, err := check.Run(ctx, f.options, targets)
	if printing := printReport(out, f.format, report); printing != nil {
		return exitFailure, printing
	}
	if err != nil {
		return exitFailure, fmt.Errorf("not finished: %w", err)
	}
	return reportCode(report), nil
}

// targets are what the arguments and the config name, or an exit code.
func (f checkFlags) targets(args []string, errOut io.Writer) ([]check.Target, int, error) {
	var origins []*url.URL
	var targets []check.Target
	for _, arg := range args {
		u, err := check.ParseURL(arg)
		if err != nil {
			return nil, exitUsage, fmt.Errorf("URL %q: %w", clean(arg), err)
		}
		if f.config != "" && check.IsOrigin(u) {
			origins = append(origins, u)
			continue
		}
		targets = append(targets, check.Target{URL: u})
	}
	if f.config == "" {
		if len(targets) == 0 {
			return nil, exitUsage, errors.New("give a URL, or --config FILE; see --help")
		}
		return targets, 0, nil
	}
	if len(origins) > 1 {
		return nil, exitUsage, errors.New("give one origin only, or URLs with paths")
	}
	_, config, err := loadConfig(f.config, f.adapter)
	if err != nil {
		return nil, exitFailure, err
	}
	gates, err := routes.Gates(config)
	if err != nil {
		return nil, exitFailure, err
	}
	if len(gates) == 0 {
		return nil, exitFailure, errors.New("the config has no paywall block")
	}
	var origin *url.URL
	if len(origins) == 1 {
		origin = origins[0]
	}
	made, left := check.FromConfig(gates, origin)
	for _, why := range left {
		_, _ = fmt.Fprintln(errOut, "not checked: "+clean(why))
	}
	targets = append(targets, made...)
	if len(targets) == 0 {
		return nil, exitFailure, errors.New("nothing can be checked; give URLs")
	}
	return targets, 0, nil
}

// reportCode is the exit code for what was found.
func reportCode(r *check.Report) int {
	code := exitOK
	for _, f := range r.Findings {
		if f.Severity == check.Open {
			return exitOpen
		}
		code = exitWarnings
	}
	if r.Bounded || r.Unanswered > 0 {
		code = exitWarnings
	}
	if len(r.Unreachable) > 0 {
		return exitNetwork
	}
	return code
}

// maxRows is how many findings of one kind and URL the table has.
const maxRows = 10

func printReport(out io.Writer, format string, r *check.Report) error {
	if format == "json" {
		encoder := json.NewEncoder(jsonOutput{out})
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Findings) > 0 {
		_, _ = fmt.Fprintln(w, "SEVERITY\tRULE\tURL\tREQUEST\tSTATUS\tFOUND")
	}
	rows := map[string]int{}
	for _, f := range r.Findings {
		key := f.URL + " " + f.Rule
		if rows[key]++; rows[key] > maxRows {
			continue
		}
		status := ""
		if f.Status > 0 {
			status = fmt.Sprint(f.Status)
		}
		request := clean(strings.TrimSpace(f.Request + " " + f.Protocol))
		_, _ = fmt.Fprintln(w, strings.Join([]string{string(f.Severity), f.Rule, clean(f.URL), request, status, clean(f.Message)}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if more := rows[key] - maxRows; more > 0 {
			_, _ = fmt.Fprintf(out, "%s: and %d more; --format json has all\n", clean(key), more)
		}
	}
	if r.Unanswered > 0 {
		_, _ = fmt.Fprintf(out, "%d requests got no answer, or 429: nothing is known of these; perhaps a lower --rate helps\n", r.Unanswered)
	}
	for _, why := range r.Unreachable {
		_, _ = fmt.Fprintln(out, "not reached: "+clean(why))
	}
	bound := ""
	if r.Bounded {
		bound = ", and stopped there: --max-requests"
	}
	over := " over " + strings.Join(r.Protocols, ", ")
	if len(r.Protocols) == 0 {
		over = ", none of which was answered"
	}
	verdict := map[int]string{exitOK: "closed", exitOpen: "OPEN", exitWarnings: "closed, with warnings", exitNetwork: "not all were reached"}[reportCode(r)]
	_, err := fmt.Fprintf(out, "%s: %d of %d URLs in every way, with %d requests%s%s\n",
		verdict, r.Complete, r.Targets, r.Requests, over, bound)
	return err
}
