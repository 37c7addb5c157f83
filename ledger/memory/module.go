package memory

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(Module{})
}

// Module is the ledger in memory. It survives config reloads. When the process
// ends, payments under way are forgotten, and an authorization whose
// settlement was not finished can be presented again; the chain, which takes
// each authorization once, is then all that is left between a payer and a
// second charge. So it is for tests and trials, and asks for consent.
type Module struct {
	// Must be true: payments are forgotten when the process ends.
	IAcceptLoss bool `json:"i_accept_loss,omitempty"`

	// How many payments to remember at most. When it is full of payments that
	// may not be forgotten, new ones are refused. Default: `1000000`.
	Max int `json:"max,omitempty"`

	*Ledger `json:"-"`

	held bool // a reference in the pool
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.ledgers.memory", New: func() caddy.Module { return new(Module) }}
}

// ledgers keeps the ledger across reloads. There is one in a process, whatever
// its options: a second, empty one would sell used authorizations again.
var ledgers = caddy.NewUsagePool()

const poolKey = "memory"

// kept is a ledger in the pool. Requests of an old config may still use it when
// it leaves the pool, so nothing is destroyed.
type kept struct{ *Ledger }

func (kept) Destruct() error { return nil }

// Provision takes the ledger that the config before used, or makes one.
func (m *Module) Provision(caddy.Context) error {
	if !m.IAcceptLoss {
		return errors.New("the memory ledger forgets payments when Caddy stops; write `ledger memory i_accept_loss` if that is acceptable")
	}
	if m.Max < 0 {
		return fmt.Errorf("max: %d is negative", m.Max)
	}
	pooled, _, err := ledgers.LoadOrNew(poolKey, func() (caddy.Destructor, error) {
		return kept{New(Options{})}, nil
	})
	if err != nil {
		return err
	}
	m.held, m.Ledger = true, pooled.(kept).Ledger
	m.SetMax(m.Max)
	return nil
}

// Where implements ledger.Placed.
func (*Module) Where() string { return "memory" }

// Cleanup implements caddy.CleanerUpper.
func (m *Module) Cleanup() error {
	if !m.held {
		return nil
	}
	_, err := ledgers.Delete(poolKey)
	return err
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	ledger memory i_accept_loss
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	var consent string
	if !d.AllArgs(&consent) || consent != "i_accept_loss" {
		return d.Err("the memory ledger forgets payments when Caddy stops; write `ledger memory i_accept_loss` if that is acceptable")
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("unknown word %q; the memory ledger has no options", d.Val())
	}
	m.IAcceptLoss = true
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Module)(nil)
	_ caddy.CleanerUpper    = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
)
