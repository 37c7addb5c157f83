package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/ethereum/go-ethereum/common"

	_ "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/client"
	_ "github.com/caddy-paywall/caddy-paywall/devchain/devfacilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// sayer prints a line.
type sayer func(format string, a ...any)

// shop is the old site, Caddy before it, and the chain behind Caddy.
type shop struct {
	origin string
	rpc    string
	chain  *chain
	dir    string
}

// open starts all of it.
func open(ctx context.Context, o options, say sayer) (*shop, error) {
	s := &shop{origin: o.site, rpc: "http://" + o.chain}
	if err := checkSite(o.site); err != nil {
		return nil, err
	}
	if err := freePort(o.site, "-site"); err != nil {
		return nil, err
	}
	if err := freePort("http://"+o.chain, "-chain"); err != nil {
		return nil, err
	}
	upstream, err := startSite()
	if err != nil {
		return nil, fmt.Errorf("starting the old site: %w", err)
	}
	say("  an old site, which knows nothing of payments   http://%s", upstream)

	if s.dir, err = os.MkdirTemp("", "caddy-paywall-demo-"); err != nil {
		return nil, err
	}
	if err := startCaddy(o, upstream, s.dir); err != nil {
		s.close()
		return nil, fmt.Errorf("starting Caddy with %s: %w", cmp.Or(o.config, exampleName), err)
	}
	say("  Caddy with %-36s %s", cmp.Or(o.config, exampleName), o.site)

	s.chain, err = dial(ctx, "http://"+o.chain)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("reaching the chain: %w", err)
	}
	say("  a chain with test dollars                      http://%s\n", o.chain)
	return s, nil
}

// example is the file that the project shows, so that the demo runs in any folder. A test
// keeps the two alike.
//
//go:embed Caddyfile.example
var example []byte

// exampleName is what the demo calls it.
const exampleName = "Caddyfile.example"

// caddyfile reads the file, or takes the example if it has no name.
func caddyfile(name string) ([]byte, error) {
	if name == "" {
		return example, nil
	}
	return os.ReadFile(name) //nolint:gosec // the user's choice
}

// startCaddy runs the Caddyfile in this process. What it needs to know it reads
// from the environment.
func startCaddy(o options, upstream, dir string) error {
	content, err := caddyfile(o.config)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"PAYWALL_FACILITATOR": "dev {\n listen " + o.chain + "\n}",
		"PAYWALL_SITE":        o.site,
		"PAYWALL_UPSTREAM":    upstream,
		"XDG_DATA_HOME":       dir, // what is paid with test money is forgotten with it
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	// Caddy's state belongs to the demo, not to the user.
	caddy.ConfigAutosavePath = filepath.Join(dir, "autosave.json")
	caddy.DefaultStorage.Path = filepath.Join(dir, "data")
	caddy.DefaultAdminListen = "127.0.0.1:0"

	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(content, map[string]any{"filename": cmp.Or(o.config, exampleName)})
	if err != nil {
		return err
	}
	return caddy.Load(adapted, true)
}

// checkSite refuses what Caddy would serve otherwise than the demo asks for it:
// with TLS, for which it would make the system trust a certificate.
func checkSite(site string) error {
	u, err := url.Parse(site)
	if err != nil || u.Scheme != "http" || u.Port() == "" || u.Port() == "0" || site != "http://"+u.Host {
		return fmt.Errorf("-site %s: want http://, a host and a port, such as http://localhost:8402", site)
	}
	return nil
}

// freePort makes sure that a port is free, and says what to do if not.
func freePort(url, option string) error {
	address := strings.TrimPrefix(url, "http://")
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; choose another one with %s", address, err, option)
	}
	return l.Close()
}

func (s *shop) close() {
	_ = caddy.Stop()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// roundTrip asks for an article twice: without paying, and with.
func (s *shop) roundTrip(ctx context.Context, say sayer) error {
	const path = "/articles/1"
	key, err := client.DevKey(payerAccount)
	if err != nil {
		return err
	}
	limit, err := client.ParseLimit("0.10")
	if err != nil {
		return err
	}

	say("1. A request that does not pay\n")
	say("     GET %s%s", s.origin, path)
	c := &client.Client{Limits: []client.Limit{limit}} // no key
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.origin+path, nil)
	if err != nil {
		return err
	}
	result, err := c.Do(req)
	if err := askedForMoney(result, err); err != nil {
		return err
	}
	say("     402 Payment Required, and not a byte of the article. The challenge offers:")
	for _, o := range result.Challenge.Offers {
		say("       %s (TEST MONEY) on %s, payable to %s", o.Price(), o.Network.Name, o.PayTo())
	}
	say("")

	say("2. The same request, paid\n")
	var offer client.Offer
	var before balances
	c.Key = key
	c.Confirm = func(_ context.Context, p *client.Payment) error {
		offer = p.Offer
		if before, err = s.balances(ctx, key.Address(), offer); err != nil {
			return err
		}
		say("     %s signs a transfer of exactly %s, good for %s", key.Address(), offer.Price(), time.Until(p.ValidBefore()).Round(time.Second))
		return nil
	}
	if result, err = c.Do(req); err != nil {
		return fmt.Errorf("paying: %w", err)
	}
	defer result.Response.Body.Close()
	body, err := io.ReadAll(result.Response.Body)
	if err != nil {
		return fmt.Errorf("reading the article: %w", err)
	}
	if result.Outcome != client.Delivered || !result.Paid() {
		return fmt.Errorf("the paid request was %s (%s): %s", result.Outcome, result.Code, result.Response.Status)
	}
	say("     %s, %d bytes: %s", result.Response.Status, len(body), firstLine(body))
	say("     the receipt names the transaction %s\n", result.Receipt.Transaction)

	say("3. What the chain says\n")
	block, err := s.chain.settled(ctx, result.Receipt.Transaction)
	if err != nil {
		return fmt.Errorf("looking up the transaction: %w", err)
	}
	after, err := s.balances(ctx, key.Address(), offer)
	if err != nil {
		return err
	}
	say("     the transaction is in block %d", block)
	say("     payer  %s   %s -> %s %s", key.Address(), before.payer.text, after.payer.text, offer.Asset.Symbol)
	say("     payee  %s   %s -> %s %s\n", offer.PayTo(), before.payee.text, after.payee.text, offer.Asset.Symbol)
	return moved(before, after, offer)
}

// askedForMoney makes sure that there was a challenge that only a key is missing for.
func askedForMoney(result *client.Result, err error) error {
	switch {
	case err == nil:
		_ = result.Response.Body.Close()
		return fmt.Errorf("the unpaid request was not asked for money, but answered %s; give -log a file, and see there why", result.Response.Status)
	case !errors.Is(err, client.ErrNoKey) || result == nil || result.Challenge == nil:
		return fmt.Errorf("the unpaid request was not asked for money: %w", err)
	}
	return nil
}

// moved makes sure that exactly the price changed hands.
func moved(before, after balances, offer client.Offer) error {
	price, ok := new(big.Int).SetString(offer.Requirement.Amount, 10)
	if !ok {
		return fmt.Errorf("amount %q", offer.Requirement.Amount)
	}
	paid := new(big.Int).Sub(before.payer.units, after.payer.units)
	got := new(big.Int).Sub(after.payee.units, before.payee.units)
	if paid.Cmp(price) != 0 || got.Cmp(price) != 0 {
		return fmt.Errorf("the price is %s units, the payer paid %s, the payee got %s", price, paid, got)
	}
	return nil
}

// balances are what payer and payee have.
type balances struct{ payer, payee balance }

type balance struct {
	units *big.Int
	text  string
}

func (s *shop) balances(ctx context.Context, payer string, offer client.Offer) (b balances, err error) {
	for account, to := range map[string]*balance{payer: &b.payer, offer.PayTo(): &b.payee} {
		if to.units, err = s.chain.balance(ctx, common.HexToAddress(offer.Requirement.Asset), common.HexToAddress(account)); err != nil {
			return b, fmt.Errorf("asking for the balance of %s: %w", account, err)
		}
		to.text = "0"
		if to.units.Sign() > 0 {
			to.text = money.FormatAtomic(to.units.String(), offer.Asset.Decimals)
		}
	}
	return b, nil
}

// invite says what to try.
func (s *shop) invite(say sayer) {
	program := "go run ./cmd/caddy"
	if !exists("cmd/caddy") { // not in the checkout
		program = "caddy"
	}
	say("\nNow you. The shop stays open until you press Ctrl-C. In another terminal:\n")
	for _, line := range []string{
		"curl -i " + s.origin + "/articles/2                                             # unpaid: 402",
		"curl -i " + s.origin + "/api/health                                             # free",
		program + " paywall pay " + s.origin + "/articles/2 --dev-key 1",
		program + " paywall pay " + s.origin + "/stream --dev-key 2",
		program + " paywall pay -X POST -d hello " + s.origin + "/api/render --dev-key 3",
		program + " paywall pay -o file " + s.origin + "/downloads/file --dev-key 1",
		program + ` paywall pay -d '{"messages":[{"content":"Hello"}]}' --max 0.50 ` + s.origin + "/v1/chat/completions --dev-key 1 --rpc " + s.rpc,
	} {
		say("    %s", line)
	}
	// A Caddyfile may keep it elsewhere.
	if file := sqlite.DefaultFile(); exists(file) {
		say("    %s paywall payments --file %s   # what was paid", program, file)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return fmt.Sprintf("%.80s", line)
}
