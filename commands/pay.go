package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const payHelp = `Fetches a URL and, if it has a price, pays it with the x402 protocol.

The body of the answer goes to stdout, or to the file of --output; what it cost
goes to stderr. A terminal gets of the body only what shows, and no control
characters; a file or a pipe gets it to the letter. The payment is a signed authorization on an EVM chain: by EIP-3009,
such as USDC takes, or for Permit2, which the token has to be approved for. Of a
price that is a maximum ("up to"), the seller charges what was used. Without a
price this is a plain request.

With --rpc a token that is not yet approved for Permit2 is approved by signature,
for exactly the price, if it has EIP-2612 and the seller offers to pay the gas.

A price above --max is asked about on a terminal, and refused elsewhere, unless
--yes is given. --max says what may be spent:

  --max 0.25                    dollars, in any asset that is pegged to them
  --max '0.02 eurc'             an asset by its symbol
  --max '10000 base/0x8335…'    the smallest units of an asset by its address;
                                the only way to pay an unknown one unasked

One run signs one payment. On 503, on 409 while the payment is in flight, and
after a lost connection the same payment is sent again, as the seller asks, for
as long as --wait: that moves no money twice.

A seller who is silent for --timeout is given up: before an answer has begun, or
within one. One who drips is given up after --max-time; each KiB adds a second to
that, so that a stream which flows goes on. Stopping once the payment has left does
not take it back: see exit code 6.

A redirect to another origin (scheme, host, port) gets none of the headers given
with -H but Accept, Accept-Encoding, Accept-Language, Cache-Control, Range and
User-Agent, and never a body. A price at another origin than that of the URL is
paid only when agreed to on a terminal; the same host over https is no other.

The key is never an argument, where other users of the machine would see it. It
comes from the environment variable PAYWALL_KEY, from the variable of --key-env,
or from the file of --key-file: 64 hexadecimal digits. --dev-key takes a well-known
account of development chains; it pays only with test money, on this machine or
on base-sepolia. On the demo's chain the accounts 1 to 9 have test dollars; account
0 pays for gas there, and has none.

` + exitCodes

const payExamples = `  caddy paywall pay --dry-run https://shop.example/articles/1
  caddy paywall pay --dev-key 1 http://localhost:8402/articles/1
  caddy paywall pay --max 0.25 -o picture.png -d '{"prompt":"a cat"}' \
      -H 'Content-Type: application/json' https://shop.example/api/render`

// pay is one run of caddy paywall pay.
type pay struct {
	method, data, output     string
	headers, max             []string
	networks, assets         []string
	keyEnv, keyFile, rpc     string
	devKey                   int
	v1, v2                   bool
	dryRun, yes, include     bool
	quiet, verbose, withData bool
	wait, timeout, maxTime   time.Duration

	in       io.Reader
	out      io.Writer
	report   *report
	terminal func(io.Reader) bool // whether somebody sits at in
	screen   func(io.Writer) bool // whether out is a terminal
}

func newPayCommand() *cobra.Command { return (&pay{terminal: isTerminal, screen: isScreen}).command() }

func (p *pay) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "pay [flags] URL",
		Short:         "Fetches a URL, and pays for it",
		Long:          payHelp,
		Example:       payExamples,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit(cmd, exitUsage, errors.New("give one URL; see --help"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p.in, p.out = cmd.InOrStdin(), cmd.OutOrStdout()
			p.report = &report{w: cmd.ErrOrStderr(), quiet: p.quiet, verbose: p.verbose}
			p.withData = cmd.Flags().Changed("data")
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			code, err := p.run(ctx, args[0], cmd.Flags().Changed("key-env"))
			if code == exitUsage {
				err = hideKey(err)
			}
			return exit(cmd, code, err)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit(cmd, exitUsage, hideKey(err)) })
	f := cmd.Flags()
	f.StringVarP(&p.method, "method", "X", "", "method of the request (default GET, with --data POST)")
	f.StringArrayVarP(&p.headers, "header", "H", nil, "header of the request, such as 'Accept: text/plain'; repeatable")
	f.StringVarP(&p.data, "data", "d", "", "body of the request; @file reads it from a file, @- from stdin")
	f.StringVarP(&p.output, "output", "o", "", "file for the body of the answer (default stdout)")
	f.BoolVarP(&p.include, "include", "i", false, "put the answer's status and headers before its body")
	f.StringArrayVar(&p.max, "max", []string{"0.10"}, "the most to pay without asking; repeatable")
	f.BoolVar(&p.yes, "yes", false, "pay more than --max without asking, but never an unknown asset")
	f.StringArrayVar(&p.networks, "network", nil, "pay only on this network; repeatable, the best first")
	f.StringArrayVar(&p.assets, "asset", nil, "pay only with this asset, by symbol or address; repeatable")
	f.BoolVar(&p.v1, "v1", false, "speak version 1 of the protocol")
	f.BoolVar(&p.v2, "v2", false, "speak version 2 of the protocol (default: 2 where the seller does)")
	f.StringVar(&p.keyEnv, "key-env", "PAYWALL_KEY", "environment variable that holds the private key")
	f.StringVar(&p.keyFile, "key-file", "", "file that holds the private key")
	f.IntVar(&p.devKey, "dev-key", -1, "pay from this account of the development mnemonic, 0 or above")
	f.StringVar(&p.rpc, "rpc", "", "URL of a node of the chain, to look up whether a token is approved for Permit2")
	f.BoolVar(&p.dryRun, "dry-run", false, "show what would be signed, as JSON on stdout, and sign nothing")
	f.DurationVar(&p.wait, "wait", client.DefaultWait, "how long to send the same payment again while its outcome is open")
	f.DurationVar(&p.timeout, "timeout", client.DefaultTimeout, "how long the seller may be silent, before an answer or within one; 0 for ever")
	f.DurationVar(&p.maxTime, "max-time", client.DefaultMaxTime, "how long an answer may take, with a second more for each KiB of it; 0 for ever")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing but errors")
	f.BoolVarP(&p.verbose, "verbose", "v", false, "say more: all offers, and the whole receipt")
	return cmd
}

// run returns the exit code, and what there is to say about it.
func (p *pay) run(ctx context.Context, url string, envIsChosen bool) (int, error) {
	c, err := p.client(envIsChosen)
	if err != nil {
		return exitUsage, err
	}
	req, err := p.request(ctx, url)
	if err != nil {
		return exitUsage, err
	}
	to, end := p.out, func() {}
	if p.screen != nil && p.screen(to) {
		s := &screen{w: to}
		to, end = s, s.end
	}
	out, err := openOutput(p.output, to)
	if err != nil {
		return exitFailure, err // found before anything is paid
	}
	result, err := c.Do(req)
	p.report.asked(result)
	result, code, err := p.finish(ctx, c, out, result, err)
	end()
	if closing := out.close(); closing != nil && err == nil {
		return exitFailure, fmt.Errorf("%w%s", closing, spent(result))
	}
	return code, err
}

// maxFetches is how often goods that broke off are fetched anew.
const maxFetches = 3

// finish writes the answer, and says what became of the payment. Goods that
// broke off are fetched again with the same payment, if the output can start
// anew. It returns what came last too.
func (p *pay) finish(ctx context.Context, c *client.Client, out *output, r *client.Result, err error) (*client.Result, int, error) {
	for fetch := 1; ; fetch++ {
		p.report.paid(r)
		code := exitCode(r, err)
		if r == nil || r.Response == nil {
			return r, code, p.explain(r, err)
		}
		read, failed := out.write(r.Response, p.include)
		switch {
		case failed != nil:
			return r, exitFailure, fmt.Errorf("%w: %w%s", errOutput, failed, spent(r))
		case read == nil:
			return r, code, p.explain(r, err)
		case r.Payment == nil:
			return r, exitNetwork, fmt.Errorf("the answer broke off: %w", read)
		case fetch == maxFetches || !out.rewinds || ctx.Err() != nil || errors.Is(read, client.ErrSlow):
			return r, exitNoGoods, fmt.Errorf("%s, but the answer broke off: %w%s", answered(r), read, fetchAgain(r))
		}
		p.report.line("the answer broke off; fetching it again with the same payment")
		r, err = c.Send(ctx, r.Payment)
	}
}

// client makes the client that the flags ask for.
func (p *pay) client(envIsChosen bool) (*client.Client, error) {
	c := &client.Client{
		Networks: p.networks, Assets: p.assets, Confirm: p.confirm, OnResend: p.report.resend, OnRedirect: p.report.redirect, RPC: p.rpc,
		Wait: orNone(p.wait), Timeout: orNone(p.timeout), MaxTime: orNone(p.maxTime),
	}
	switch {
	case p.timeout < 0 || p.maxTime < 0:
		return nil, errors.New("--timeout and --max-time must not be negative; 0 is for ever")
	case p.v1 && p.v2:
		return nil, errors.New("--v1 and --v2 exclude each other")
	case p.v1:
		c.Version = x402.V1
	case p.v2:
		c.Version = x402.V2
	}
	for _, text := range p.max {
		l, err := client.ParseLimit(text)
		if err != nil {
			return nil, fmt.Errorf("--max: %w", err)
		}
		c.Limits = append(c.Limits, l)
	}
	if err := checkNetworks(p.networks); err != nil {
		return nil, err
	}
	var err error
	c.Key, err = p.key(envIsChosen)
	return c, err
}

// explain puts an outcome into words; nil where there is nothing to add.
func (p *pay) explain(r *client.Result, err error) error {
	if errors.Is(err, errDryRun) {
		return nil
	}
	if errors.Is(err, client.ErrNoKey) {
		return errors.New("no key to pay with: set PAYWALL_KEY, or give --key-env, --key-file or --dev-key")
	}
	if r == nil {
		return err
	}
	switch r.Outcome {
	case client.Pending:
		return errors.Join(err, fmt.Errorf("the outcome is not known%s: the seller can take this payment until %s, and a new one before that may pay twice%s",
			because(r), r.Payment.ValidBefore().UTC().Format(time.RFC3339), words(r)))
	case client.Refused:
		if r.Code == "permit2_allowance_required" {
			return errors.New("the seller refused the payment; nothing was paid: the token is not approved for Permit2. Approve it first, or give --rpc to do so by signature, where the seller offers that")
		}
		return fmt.Errorf("the seller refused the payment%s; nothing was paid", because(r))
	case client.Failed:
		return errors.Join(err, failure(r))
	default:
		return err
	}
}

// failure says what came instead of goods.
func failure(r *client.Result) error {
	said := "nothing"
	if r.Response != nil {
		said = fmt.Sprintf("%d %s", r.Response.StatusCode, http.StatusText(r.Response.StatusCode))
	}
	if r.Paid() {
		if r.Response != nil && r.Response.Header.Get("Location") != "" {
			said += " to " + phrase(r.Response.Header.Get("Location")) // the goods may be there
		}
		if words := words(r); words != "" {
			return fmt.Errorf("paid, but the answer is %s%s%s", said, because(r), words)
		}
		return fmt.Errorf("paid, but the answer is %s%s%s", said, because(r), fetchAgain(r))
	}
	if r.Uncharged() {
		return fmt.Errorf("the site failed: %s%s; nothing was charged, and it can be tried again", said, because(r))
	}
	if words := words(r); words != "" {
		return fmt.Errorf("the answer to the payment is %s%s%s", said, because(r), words)
	}
	return fmt.Errorf("the answer to the payment is %s%s, without a word on whether it was taken: the seller can take it until %s, and a new one before that may pay twice",
		said, because(r), r.Payment.ValidBefore().UTC().Format(time.RFC3339))
}

// words are what the seller says for people, as his own words.
func words(r *client.Result) string {
	if r.Message == "" {
		return ""
	}
	return `; the seller says: "` + upTo(maxWords, r.Message) + `"`
}

// answered says what is known of the money where an answer broke off.
func answered(r *client.Result) string {
	if r.Paid() {
		return "paid"
	}
	return "the payment was answered"
}

// fetchAgain says what to do about goods that are missing. Not every seller hands out what was
// paid, so that it names one who does.
func fetchAgain(r *client.Result) string {
	about := ""
	if r.Receipt != nil && r.Receipt.Transaction != "" {
		about = " and the transaction " + phrase(r.Receipt.Transaction)
	}
	return "; call again within 24 h, with the same key" + about + " at hand: a seller with caddy-paywall does not charge twice for what was not delivered, and another one may"
}

// spent says what became of the money where the goods came and were lost here.
func spent(r *client.Result) string {
	switch {
	case r == nil || r.Payment == nil || r.Outcome == client.Unpaid || r.Outcome == client.Refused || r.Uncharged():
		return ""
	case r.Paid() || r.Outcome == client.Delivered:
		return "; it was paid all the same, and paying again costs again"
	default:
		return "; it may have been paid, and paying again may cost again"
	}
}

func because(r *client.Result) string {
	if r.Code == "" {
		return ""
	}
	return " (" + phrase(r.Code) + ")"
}

// orNone is a duration as the client has it: there 0 is the usual.
func orNone(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}

func isScreen(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor fits
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor fits
}
