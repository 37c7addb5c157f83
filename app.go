package paywall

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.OnExit(drain)
}

// App is what all paywalls of a server share: the ledger, which remembers
// payments, and the facilitators, which move the money.
type App struct {
	// Where payments are remembered. There is no default yet: `memory` forgets
	// them when the process ends, and says so in its option.
	LedgerRaw json.RawMessage `json:"ledger,omitempty" caddy:"namespace=paywall.ledgers inline_key=type"`

	// Who verifies and settles payments, by the name that sites use.
	FacilitatorsRaw map[string]json.RawMessage `json:"facilitators,omitempty" caddy:"namespace=paywall.facilitators inline_key=type"`

	ledger   ledger.Ledger
	backends map[string]backend
	keys     []string // of the snapshots held in the pool
	logger   *zap.Logger
	stop     context.CancelFunc
	watching context.Context
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall", New: func() caddy.Module { return new(App) }}
}

// snapshots keeps what each facilitator said it can do, across reloads, so
// that a reload does not forget fee payers until the next fetch.
var snapshots = caddy.NewUsagePool()

type snapshot struct{ atomic.Pointer[x402.Supported] }

func (*snapshot) Destruct() error { return nil }

// settlements counts the settlements under way in this process. They belong to
// no config: a reload must not cut one short.
var settlements sync.WaitGroup

// Provision loads the ledger and the facilitators. It asks nobody anything.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	if len(a.LedgerRaw) == 0 {
		return errors.New("no ledger: add `ledger memory i_accept_loss` to the global paywall block (it forgets payments when Caddy stops)")
	}
	loaded, err := ctx.LoadModule(a, "LedgerRaw")
	if err != nil {
		return fmt.Errorf("loading the ledger: %w", err)
	}
	var ok bool
	if a.ledger, ok = loaded.(ledger.Ledger); !ok {
		return fmt.Errorf("ledger module %T is not a ledger", loaded)
	}

	// LoadModule clears the raw configs, and they are the keys of the snapshots.
	raws := a.FacilitatorsRaw
	byName, err := ctx.LoadModule(a, "FacilitatorsRaw")
	if err != nil {
		return fmt.Errorf("loading the facilitators: %w", err)
	}
	a.backends = make(map[string]backend)
	a.watching, a.stop = context.WithCancel(context.Background())
	for name, module := range byName.(map[string]any) {
		f, ok := module.(facilitator.Facilitator)
		if !ok {
			return fmt.Errorf("facilitator %s: module %T is not a facilitator", name, module)
		}
		key := fmt.Sprintf("%x", sha256.Sum256(raws[name]))
		kept, _, err := snapshots.LoadOrNew(key, func() (caddy.Destructor, error) { return new(snapshot), nil })
		if err != nil {
			return err
		}
		a.keys = append(a.keys, key)
		named := facilitator.Named{Name: name, Facilitator: f}
		source := facilitator.NewSource(named, &kept.(*snapshot).Pointer, a.logger.Named("facilitator"))
		a.backends[name] = backend{Named: named, source: source}
	}
	return nil
}

// facilitator finds a facilitator by the name it has in the global options.
func (a *App) facilitator(name string) (backend, error) {
	if b, ok := a.backends[name]; ok {
		return b, nil
	}
	var names []string
	for n := range a.backends {
		names = append(names, n)
	}
	slices.Sort(names)
	return backend{}, fmt.Errorf("unknown facilitator %q (there are: %s); define it with `facilitator %s <https-url>` in the global paywall block", name, strings.Join(names, ", "), name)
}

// Start begins to watch what the facilitators can do.
func (a *App) Start() error {
	for _, b := range a.backends {
		go b.source.Run(a.watching)
	}
	return nil
}

// Stop ends the watching. Settlements go on: see drain.
func (a *App) Stop() error {
	a.stop()
	return nil
}

// drain waits at exit, after all servers have stopped, until no settlement is
// under way, so that none is left without a recorded result.
func drain(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		settlements.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(settleWithin):
	}
}

// Cleanup implements caddy.CleanerUpper. Requests that are still running keep
// what they hold.
func (a *App) Cleanup() error {
	if a.stop != nil {
		a.stop()
	}
	var errs []error
	for _, key := range a.keys {
		_, err := snapshots.Delete(key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
