package commands

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
)

const pricesHelp = `Shows the price lists of a config as they would hold: every line, with what it
costs in each token that is accepted and who gets it, also where that is said once
for all sites.

With a URL it shows which line decides about a request for it, and why each other
line that names its path does not. Where a matcher tells clients apart, it shows
beside it what a browser and each kind of crawler would get; that they have proved
who they are, which "verified" asks for, is never assumed.

It provisions the config as "caddy validate" does, so that environment variables
and files that the config names must be there. It asks nobody anything: what a
matcher can learn only from a real connection (TLS, a proxy before the server) is not
there, and routes that change the path before the paywall are not followed.

EXIT CODES

  0  printed
  1  the config cannot be read, adapted or loaded
  2  wrong usage
  3  no paywall of this config is for the host of the URL`

const pricesExamples = `  caddy paywall prices
  caddy paywall prices https://shop.example/articles/7
  caddy paywall prices --method POST --header "X-Api-Key: me" http://localhost/api`

// exitNoSite: no block is for the URL.
const exitNoSite = 3

// PriceList is the price list of one paywall block.
type PriceList struct {
	// Site is what people call the site; Hosts are its names, none for all.
	Site  string   `json:"site"`
	Hosts []string `json:"hosts,omitempty"`
	// Where the block stands, if that is known.
	Where string `json:"where,omitempty"`
	// Observes says that the block only counts.
	Observes bool `json:"observe,omitempty"`
	// Lines are its lines as they are written.
	Lines []PriceLine `json:"lines"`

	// Judge says what a request would get.
	Judge func(*http.Request) (Verdict, error) `json:"-"`
	// ByClient says that matchers are asked.
	ByClient bool `json:"-"`
}

// PriceLine is one line of a list.
type PriceLine struct {
	// Line is what is written.
	Line string `json:"line"`
	// Costs are the ways to pay it: an amount, a token, a chain and a payee.
	Costs []string `json:"costs,omitempty"`
	// Facilitators settle it, in this order.
	Facilitators []string `json:"facilitators,omitempty"`
	// Description is what the payer reads.
	Description string `json:"description,omitempty"`
	// Observed says that the line only counts.
	Observed bool `json:"observe,omitempty"`
}

// Verdict is what a request gets.
type Verdict struct {
	// Status is 402 for what has a price, 200 for what passes, 403, 405 or 400.
	Status int `json:"status"`
	// Says it in words.
	Says string `json:"says"`
	// Line is the line that decided, "" if none did.
	Line string `json:"line,omitempty"`
	// Beside are the other lines that name the path.
	Beside []Loser `json:"beside,omitempty"`
}

// Loser is a line that names the path of a request, and does not decide.
type Loser struct {
	Line string `json:"line"`
	Why  string `json:"why"`
}

// PriceLister is the app of a paywall, which knows its price lists.
type PriceLister interface {
	PriceLists() ([]PriceList, error)
	caddy.CleanerUpper
}

// pricesFlags are the flags of caddy paywall prices.
type pricesFlags struct {
	config, adapter, format string
	method, userAgent, from string
	headers                 []string
}

func newPricesCommand() *cobra.Command {
	var f pricesFlags
	cmd := &cobra.Command{
		Use:           "prices [--config FILE] [flags] [URL]",
		Short:         "Shows the price list of a config, and what a request would cost",
		Long:          pricesHelp,
		Example:       pricesExamples,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit(cmd, exitUsage, fmt.Errorf("unexpected %q; one URL at a time", clean(args[1])))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, err) })
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "the config `file` (default: Caddyfile in this directory)")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "the `name` of the config adapter, where the file's name does not tell")
	flags.StringVar(&f.format, "format", "text", "`how` to print: text or json")
	flags.StringVarP(&f.method, "method", "X", http.MethodGet, "the `method` of the request")
	flags.StringVarP(&f.userAgent, "user-agent", "A", "", "the User-Agent `text` of the client")
	flags.StringVar(&f.from, "from", "192.0.2.1", "the `address` that the client comes from")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a `header` of the request, \"Name: value\"; repeatable")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code, err := showPrices(f, args, cmd.OutOrStdout())
		return exit(cmd, code, err)
	}
	return cmd
}

func showPrices(f pricesFlags, args []string, out io.Writer) (int, error) {
	if f.format != "text" && f.format != "json" {
		return exitUsage, fmt.Errorf("--format: want text or json, not %q", clean(f.format))
	}
	var target *url.URL
	if len(args) > 0 {
		var err error
		if target, err = url.Parse(args[0]); err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
			return exitUsage, fmt.Errorf("%q is no URL such as https://shop.example/articles/7", clean(args[0]))
		}
		if _, err := f.request(target, ""); err != nil {
			return exitUsage, err
		}
	}
	raw, _, err := loadConfig(f.config, f.adapter)
	if err != nil {
		return exitFailure, err
	}
	var c *caddy.Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return exitFailure, fmt.Errorf("decoding the config: %w", err)
	}
	quietly(c)
	ctx, err := caddy.ProvisionContext(c)
	if err != nil {
		return exitFailure, err
	}
	loaded, err := ctx.App("paywall")
	if err != nil {
		return exitFailure, err
	}
	app, ok := loaded.(PriceLister)
	if !ok {
		return exitFailure, fmt.Errorf("the paywall app is a %T", loaded)
	}
	defer app.Cleanup() //nolint:errcheck // the process ends
	lists, err := app.PriceLists()
	if err != nil {
		return exitFailure, err
	}
	if target == nil {
		return printLists(out, f.format, lists)
	}
	return f.explain(out, target, lists)
}

// quietly keeps a config from writing logs where the running one does, and from saying on
// the screen what `caddy validate` says.
func quietly(c *caddy.Config) {
	c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
}

// request makes the request that is asked about.
func (f pricesFlags) request(target *url.URL, userAgent string) (*http.Request, error) {
	r, err := http.NewRequest(f.method, target.String(), nil) //nolint:noctx // it is sent nowhere
	if err != nil {
		return nil, fmt.Errorf("--method: %q is none", clean(f.method))
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header: want \"Name: value\", not %q", clean(h))
		}
		r.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if agent := cmp.Or(userAgent, f.userAgent); agent != "" {
		r.Header.Set("User-Agent", agent)
	}
	if _, err := netip.ParseAddr(f.from); err != nil {
		return nil, fmt.Errorf("--from: %q is no address", clean(f.from))
	}
	r.RemoteAddr, r.RequestURI = netip.AddrPortFrom(netip.MustParseAddr(f.from), 12345).String(), target.RequestURI()
	r.URL = &url.URL{Path: target.Path, RawPath: target.RawPath, RawQuery: target.RawQuery} // as a server has it
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, new(caddyhttp.Server)), nil
}

func printLists(out io.Writer, format string, lists []PriceList) (int, error) {
	if format == "json" {
		return exitOK, printIndented(out, lists)
	}
	for i, list := range lists {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		head := list.Site
		if list.Where != "" {
			head += " (" + list.Where + ")"
		}
		if list.Observes {
			head += ": everything passes, and is counted"
		}
		_, _ = fmt.Fprintln(out, clean(head))
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		for _, l := range list.Lines {
			costs := strings.Join(l.Costs, ", or ")
			if l.Observed {
				costs = "passes, and is counted"
			}
			if len(l.Facilitators) > 0 {
				costs += ", through " + strings.Join(l.Facilitators, ", then ")
			}
			_, _ = fmt.Fprintf(w, "  %s\t%s\n", clean(l.Line), clean(costs))
		}
		if err := w.Flush(); err != nil {
			return exitFailure, err
		}
	}
	if len(lists) == 0 {
		_, _ = fmt.Fprintln(out, "the config has no paywall")
	}
	return exitOK, nil
}

func printIndented(out io.Writer, v any) error {
	encoder := json.NewEncoder(jsonOutput{out})
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// explained is what a request gets at one block.
type explained struct {
	Site  string `json:"site"`
	Where string `json:"where,omitempty"`
	Verdict
	ByClient []clientVerdict `json:"by_client,omitempty"`
}

// clientVerdict is what a kind of client gets.
type clientVerdict struct {
	Client    string `json:"client"`
	UserAgent string `json:"user_agent"`
	Verdict
}

func (f pricesFlags) explain(out io.Writer, target *url.URL, lists []PriceList) (int, error) {
	var found []explained
	var sites []string
	for _, list := range lists {
		sites = append(sites, list.Site)
		if len(list.Hosts) > 0 && !slices.ContainsFunc(list.Hosts, func(h string) bool { return strings.EqualFold(h, target.Hostname()) }) {
			continue
		}
		e := explained{Site: list.Site, Where: list.Where}
		var err error
		if e.Verdict, err = f.judge(list, target, ""); err != nil {
			return exitFailure, err
		}
		if list.ByClient && f.userAgent == "" {
			if e.ByClient, err = f.byClient(list, target); err != nil {
				return exitFailure, err
			}
		}
		found = append(found, e)
	}
	if len(found) == 0 {
		return exitNoSite, fmt.Errorf("no paywall is for %s; there are: %s", clean(target.Hostname()), clean(cmp.Or(strings.Join(sites, ", "), "none")))
	}
	if f.format == "json" {
		return exitOK, printIndented(out, found)
	}
	for _, e := range found {
		e.print(out) // a pipe that is closed has read enough
	}
	return exitOK, nil
}

func (f pricesFlags) judge(list PriceList, target *url.URL, userAgent string) (Verdict, error) {
	r, err := f.request(target, userAgent)
	if err != nil {
		return Verdict{}, err
	}
	return list.Judge(r)
}

// A browser, for what people get.
const browserAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// byClient asks once for a browser and once for a client of each kind.
func (f pricesFlags) byClient(list PriceList, target *url.URL) (all []clientVerdict, err error) {
	_, agents, err := crawlers.Facts()
	if err != nil {
		return nil, err
	}
	asked := []clientVerdict{{Client: "browser", UserAgent: browserAgent}}
	for _, kind := range crawlers.Kinds() {
		if i := slices.IndexFunc(agents, func(c crawlers.Crawler) bool { return c.Kind == kind }); i >= 0 {
			asked = append(asked, clientVerdict{Client: string(kind), UserAgent: agents[i].Token})
		}
	}
	for _, c := range asked {
		if c.Verdict, err = f.judge(list, target, c.UserAgent); err != nil {
			return nil, err
		}
		c.Beside = nil
		all = append(all, c)
	}
	return all, nil
}

func (e explained) print(out io.Writer) {
	_, _ = fmt.Fprintf(out, "%s: %s\n", clean(e.Site), clean(e.String()))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, l := range e.Beside {
		_, _ = fmt.Fprintf(w, "  not %s\t%s\n", clean(l.Line), clean(l.Why))
	}
	_ = w.Flush()
	var verdicts []string
	clients := map[string][]string{}
	for _, c := range e.ByClient {
		said := c.String()
		if len(clients[said]) == 0 {
			verdicts = append(verdicts, said)
		}
		clients[said] = append(clients[said], c.Client)
	}
	if len(verdicts) == 1 {
		_, _ = fmt.Fprintln(out, "  the same for a browser and every kind of crawler")
		return
	}
	for _, said := range verdicts {
		_, _ = fmt.Fprintf(out, "  for %s: %s\n", strings.Join(clients[said], ", "), clean(said))
	}
}

// String is a verdict in words.
func (v Verdict) String() string {
	said := v.Says
	if v.Status != http.StatusOK {
		said = strconv.Itoa(v.Status) + ", " + said
	}
	if v.Line != "" {
		said += ", by " + v.Line
	}
	return said
}
