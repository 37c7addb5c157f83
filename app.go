// Package paywall puts prices on paths of a site behind Caddy. It also brings the ledgers,
// the facilitators and the commands that come with it, so that one import has all.
package paywall

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/commands"
	"github.com/caddy-paywall/caddy-paywall/crawlers"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	_ "github.com/caddy-paywall/caddy-paywall/facilitator/evm"
	_ "github.com/caddy-paywall/caddy-paywall/facilitator/remote"
	_ "github.com/caddy-paywall/caddy-paywall/health"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/internal/succession"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/memory"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/postgres"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/routes"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.OnExit(settlement.Drain)
}

// App is what all paywalls of a server share: the ledger, which remembers
// payments, and the facilitators, which move the money.
type App struct {
	// Where payments are remembered. Default: `sqlite`, a file in Caddy's data
	// directory.
	LedgerRaw json.RawMessage `json:"ledger,omitempty" caddy:"namespace=paywall.ledgers inline_key=type"`

	// Ledgers in which was sold before: what is owed there can be fetched, what is in
	// doubt is found out, and what was used there buys nothing here. A reload that
	// changes the ledger keeps the one before by itself until the process ends.
	FormerLedgersRaw []json.RawMessage `json:"former_ledgers,omitempty" caddy:"namespace=paywall.ledgers inline_key=type"`

	// Who verifies and settles payments, by the name that sites use.
	FacilitatorsRaw map[string]json.RawMessage `json:"facilitators,omitempty" caddy:"namespace=paywall.facilitators inline_key=type"`

	// What sites accept that have no list of their own, in the order of preference that
	// payers see.
	Accept []Accept `json:"accept,omitempty"`

	// What is known of crawlers beside the table that comes with the paywall, for the
	// `crawler` matcher.
	Crawlers *crawlers.Config `json:"crawlers,omitempty"`

	ctx      caddy.Context
	places   *places
	ledgers  *succession.Config
	ledger   *ledger.Guarded // over them
	shared   *shared
	settlers *facilitator.Set
	defined  []string // the names of the facilitators in this config, in order
	keys     []string // of the memories held in the pool
	desk     *settlement.Settler
	quotes   *offer.Quotes // what challenges prove themselves with
	traffic  traffic.Store
	logger   *zap.Logger
	sells    bool // some gate does more than to observe
	observes bool // some gate does no more
	stop     context.CancelFunc
	watching context.Context

	notes priceNotes // of the sites

	testFacilitator string // the name of one that settles test money, or ""
	realNetwork     string // the name of one that is accepted and whose money is real, or ""
	testNetwork     string // the name of one that is accepted and is for tests, or ""
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall", New: func() caddy.Module { return new(App) }}
}

// memories keeps what each facilitator said it can do, across reloads, so
// that a reload does not forget fee payers until the next fetch, and whether it
// gives answers.
var memories = caddy.NewUsagePool()

// gauges are what the metrics say is so now.
var gauges = metrics.Gauges{
	Facilitators: func(yield func(*facilitator.Memory) bool) {
		memories.Range(func(_, v any) bool { return yield(v.(*facilitator.Memory)) })
	},
	Unsettled: func() int {
		if s := currentShared(); s != nil {
			return s.admission.Unsettled.Count()
		}
		return 0
	},
	LedgerUp: func() (up, known bool) {
		s := currentShared()
		if s == nil || s.started.Load() == nil {
			return false, false
		}
		return s.started.Load().Ready() == nil, true
	},
	ClockAhead: func() time.Duration {
		s := currentShared()
		if s == nil || s.started.Load() == nil {
			return 0
		}
		return s.started.Load().settlers.ClockAhead()
	},
	InDoubt: func() *metrics.Count {
		if s := currentShared(); s != nil {
			return s.inDoubt.Load()
		}
		return nil
	},
	Owed: func() *metrics.Count {
		if s := currentShared(); s != nil {
			return s.owed.Load()
		}
		return nil
	},
}

// Provision loads the ledger and the facilitators. It asks nobody anything.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger, a.places, a.quotes = ctx, ctx.Logger(), new(places), offer.NewQuotes()
	if len(a.LedgerRaw) == 0 {
		a.LedgerRaw = json.RawMessage(`{"type":"sqlite"}`)
	}
	a.warnAboutConfig()
	for i, entry := range a.Accept {
		if err := checkAccept(entry); err != nil {
			return fmt.Errorf("accept, entry %d: %w", i+1, err)
		}
	}
	var err error
	if a.shared, err = takeShared(); err != nil {
		return err
	}
	if err := a.loadLedgers(); err != nil {
		return err
	}
	raws := a.FacilitatorsRaw // LoadModule clears the raw configs
	a.defined = slices.Sorted(maps.Keys(raws))
	byName, err := ctx.LoadModule(a, "FacilitatorsRaw")
	if err != nil {
		return fmt.Errorf("loading the facilitators: %w", err)
	}
	a.settlers = facilitator.NewSet()
	a.watching, a.stop = context.WithCancel(context.Background())
	for name, module := range byName.(map[string]any) {
		if err := a.add(name, module, raws[name]); err != nil {
			return err
		}
	}
	a.ledger.AnswerPeers(func(ctx context.Context, key ledger.Key) []byte {
		return a.shared.purchases.Account(ctx, key, a.ledger.HeldHere(key), a.shared.unrecorded.Has)
	})
	a.desk = &settlement.Settler{
		Ledger: a.ledger, Facilitators: a.settlers, Admission: a.shared.admission, Unrecorded: &a.shared.unrecorded,
		Blocks: a.shared.blocks, Logger: a.logger,
	}
	return nil
}

// loadLedgers loads the ledger, and those in which was sold before.
func (a *App) loadLedgers() error {
	raw := a.LedgerRaw // LoadModule clears the raw configs
	module, err := a.ctx.LoadModule(a, "LedgerRaw")
	if err != nil {
		return fmt.Errorf("loading the ledger: %w", err)
	}
	store, ok := module.(ledger.Ledger)
	if !ok {
		return fmt.Errorf("ledger module %T is not a ledger", module)
	}
	named, err := a.loadFormer()
	if err != nil {
		return err
	}
	a.traffic = traffic.Nowhere{} // where the ledger is in memory
	if keeps, ok := module.(interface{ Traffic() traffic.Store }); ok {
		a.traffic = keeps.Traffic()
	}
	own := succession.Loaded{Raw: raw, Ledger: store}
	if a.ledgers, a.FormerLedgersRaw, err = a.shared.ledgers.Enter(own, named, a.logger); err != nil {
		return err
	}
	kept, err := a.loadFormer()
	if err != nil {
		return fmt.Errorf("the config before sold in a ledger that has to be kept until a restart: %w", err)
	}
	a.ledgers.Keep(kept)
	a.ledger = ledger.Guard(a.ledgers.Ledger)
	a.ledgers.HasSold = a.ledger.HasAnswered
	return nil
}

// loadFormer loads what is in FormerLedgersRaw.
func (a *App) loadFormer() (formers []succession.Loaded, err error) {
	raws := a.FormerLedgersRaw
	if len(raws) == 0 {
		return nil, nil
	}
	modules, err := a.ctx.LoadModule(a, "FormerLedgersRaw")
	if err != nil {
		return nil, fmt.Errorf("loading a former ledger: %w", err)
	}
	for i, module := range modules.([]any) {
		store, ok := module.(ledger.Ledger)
		if !ok {
			return nil, fmt.Errorf("ledger module %T is not a ledger", module)
		}
		formers = append(formers, succession.Loaded{Raw: raws[i], Ledger: store})
	}
	return formers, nil
}

// add makes a facilitator module usable under a name.
func (a *App) add(name string, module any, raw json.RawMessage) error {
	f, ok := module.(facilitator.Facilitator)
	if !ok {
		return fmt.Errorf("facilitator %s: module %T is not a facilitator", name, module)
	}
	key := fmt.Sprintf("%s %x", name, sha256.Sum256(raw))
	kept, _, err := memories.LoadOrNew(key, func() (caddy.Destructor, error) { return &facilitator.Memory{Name: name}, nil })
	if err != nil {
		return err
	}
	a.keys = append(a.keys, key)
	if t, ok := f.(interface{ TestMoney() bool }); ok && t.TestMoney() {
		a.testFacilitator = name
		if err := a.checkMoney(); err != nil {
			return err
		}
	}
	a.settlers.Add(f, kept.(*facilitator.Memory), a.logger.Named("facilitator"))
	return nil
}

// checkMoney keeps play money and real money out of one server: whoever mixes
// them up gives goods away.
func (a *App) checkMoney() error {
	if a.testFacilitator != "" && a.realNetwork != "" {
		return fmt.Errorf("facilitator %s settles TEST MONEY, and %s is accepted, which is real; a server has one or the other", a.testFacilitator, a.realNetwork)
	}
	return nil
}

// accepts records that a network is accepted somewhere.
func (a *App) accepts(n money.Network) error {
	if n.Test {
		a.testNetwork = n.Name
	} else {
		a.realNetwork = n.Name
	}
	return a.checkMoney()
}

// facilitator finds a facilitator by the name it has in the global options. A
// word that is no name there may be a module that needs no options.
func (a *App) facilitator(name string) (*facilitator.Member, error) {
	if m, ok := a.settlers.Member(name); ok {
		return m, nil
	}
	if _, err := caddy.GetModule("paywall.facilitators." + name); err == nil {
		module, err := a.ctx.LoadModuleByID("paywall.facilitators."+name, nil)
		if err != nil {
			return nil, fmt.Errorf("loading facilitator %s, which has no options in the global paywall block: %w", name, err)
		}
		if err := a.add(name, module, nil); err != nil {
			return nil, err
		}
		m, _ := a.settlers.Member(name)
		return m, nil
	}
	if name == "dev" {
		return nil, errors.New("facilitator dev: this build has no development chain; the demo's has (`go run ./cmd/demo -config <Caddyfile>`)")
	}
	return nil, fmt.Errorf("unknown facilitator %q (there are: %s); define it with `facilitator %s <https-url>` in the global paywall block", name, strings.Join(a.settlers.Names(), ", "), name)
}

// Whom test money is settled by where nobody is named. It needs no account, and takes no real
// money.
const (
	testMoneyName = "x402org"
	testMoneyURL  = "https://www.x402.org/facilitator"
)

// unnamed is the facilitator of a price that names none: the only one there is, or that of
// x402.org where there is none and all that is accepted is test money.
func (a *App) unnamed(options []*offer.Option) (string, error) {
	switch {
	case len(a.defined) == 1:
		return a.defined[0], nil
	case len(a.defined) > 1:
		return "", fmt.Errorf("no facilitator is named, and there are several (%s); add `facilitator <name>...` to the site, in the order in which to try them", strings.Join(a.defined, ", "))
	}
	for _, o := range options {
		if !o.Network.Test {
			return "", fmt.Errorf("no facilitator is defined, and %s is real money; add `facilitator <name> <https-url>` to the `paywall` block of the global options", o.Network.Name)
		}
	}
	if _, ok := a.settlers.Member(testMoneyName); ok {
		return testMoneyName, nil
	}
	raw := caddyconfig.JSON(map[string]string{"url": testMoneyURL}, nil)
	module, err := a.ctx.LoadModuleByID("paywall.facilitators.remote", raw)
	if err != nil {
		return "", fmt.Errorf("loading the facilitator of x402.org: %w", err)
	}
	a.logger.Info("no facilitator is defined, and all that is accepted is test money: x402.org settles it; for real money, define one in the `paywall` block of the global options",
		zap.String("facilitator", testMoneyName), zap.String("url", testMoneyURL))
	return testMoneyName, a.add(testMoneyName, module, raw)
}

// processSecret is what a ledger has that has no secret of its own: after a restart an
// upstream sees other keys.
var processSecret = []byte(rand.Text())

// secret is what all gateways that share the ledger know, and nobody else.
func (a *App) secret(ctx context.Context) ([]byte, error) {
	return secretOf(ctx, a.ledgers.Ledger.Current())
}

// secretFor is that of the ledger which has a payment: what is made with it is the same for
// as long as that is owed.
func (a *App) secretFor(ctx context.Context, c ledger.Claim) ([]byte, error) {
	return secretOf(ctx, a.ledgers.Ledger.HolderOf(c))
}

func secretOf(ctx context.Context, of ledger.Ledger) ([]byte, error) {
	l, ok := of.(ledger.Secrets)
	if !ok {
		return processSecret, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledger.CallWithin)
	defer cancel()
	return l.Secret(ctx)
}

// Start refuses routes that leave a gate open, and begins to watch what the
// facilitators can do.
func (a *App) Start() error {
	if err := a.checkRoutes(); err != nil {
		return err
	}
	if err := a.ledgers.Check(); err != nil {
		return err
	}
	a.warnAboutMoney()
	a.warnAboutBlocks()
	a.warnAboutLimits()
	go a.keepTraffic()
	a.shared.started.Store(a)
	if a.observes && !a.sells && len(a.settlers.Names()) == 0 {
		return nil // nothing is sold, and nobody can be asked about what was: no ledger is needed
	}
	a.settlers.Run(a.watching, a.logger.Named("facilitator"))
	go a.quotes.Learn(a.watching, a.secret)
	go a.ledger.Watch(a.watching, a.logger)
	go func() {
		if err := a.ledgers.Ledger.Open(a.watching); err != nil && a.watching.Err() == nil {
			a.logger.Error("the ledger cannot be opened; payments are refused until it can", zap.Error(err))
		}
		a.ledgers.Watch(a.watching)
		go a.desk.WatchOwed(a.watching, func(owed metrics.Count) { a.shared.owed.Store(&owed) })
		a.settlers.WatchChains(a.watching, a.ledgers.Ledger, a.logger)
		go a.desk.WatchBlocks(a.watching)
		a.desk.Reconcile(a.watching, func(doubts metrics.Count) { a.shared.inDoubt.Store(&doubts) })
	}()
	return nil
}

// Ready says why this gateway cannot sell, nil if it can. See package health.
func (a *App) Ready() error {
	_, err := a.ledger.Down()
	return err
}

// Stop ends the watching. Settlements go on: see settlement.Drain.
func (a *App) Stop() error {
	a.stop()
	if err := a.flushTraffic(); err != nil {
		a.logger.Warn("the latest counts of requests are lost, unless the next config can keep them", zap.Error(err))
	}
	return nil
}

// Cleanup implements caddy.CleanerUpper. Requests that are still running keep
// what they hold.
func (a *App) Cleanup() error {
	if a.stop != nil {
		a.stop()
	}
	var errs []error
	if c, ok := a.traffic.(io.Closer); ok {
		errs = append(errs, a.flushTraffic(), c.Close()) // requests have ended since Stop
	}
	if a.ledgers != nil {
		a.ledgers.Leave()
	}
	if a.shared != nil {
		_, err := sharedStates.Delete(sharedKey)
		errs = append(errs, err)
	}
	for _, key := range a.keys {
		_, err := memories.Delete(key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// shared is what all configs of a process share, since claims and settlements outlive
// their config: the bounds, what was offered and said lately, and what is under way.
type shared struct {
	admission *admission.Control
	offered   *offer.History
	purchases *purchase.Shared
	ledgers   succession.Ledgers

	unrecorded settlement.Unrecorded
	blocks     *settlement.Blocks // of the latest payments
	traffic    traffic.Counter

	// started is the app of the config that was started last.
	started atomic.Pointer[App]

	// inDoubt is what the reconciler saw in its last round, and owed what WatchOwed last counted.
	inDoubt, owed atomic.Pointer[metrics.Count]

	// findings is nil but in tests that show what the findings of routes are refused for.
	findings func([]routes.Finding) []routes.Finding
}

func newShared() *shared {
	return &shared{
		admission: admission.New(),
		offered:   offer.NewHistory(),
		purchases: purchase.NewShared(),
		blocks:    settlement.NewBlocks(),
	}
}

// Destruct implements caddy.Destructor.
func (*shared) Destruct() error { return nil }

// sharedStates has one entry, while a config with paywalls is loaded: a reload provisions
// the new config before the old one goes.
var sharedStates = caddy.NewUsagePool()

const sharedKey = "paywall"

func takeShared() (*shared, error) {
	s, _, err := sharedStates.LoadOrNew(sharedKey, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return nil, err
	}
	return s.(*shared), nil
}

// currentShared is the shared value while a config with paywalls is loaded, or nil.
func currentShared() (s *shared) {
	sharedStates.Range(func(_, v any) bool {
		s = v.(*shared)
		return true
	})
	return s
}

// Interface guards
var (
	_ caddy.App            = (*App)(nil)
	_ caddy.Provisioner    = (*App)(nil)
	_ caddy.CleanerUpper   = (*App)(nil)
	_ commands.PriceLister = (*App)(nil)
)
