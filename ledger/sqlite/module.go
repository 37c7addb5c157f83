package sqlite

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

func init() {
	caddy.RegisterModule(Module{})
}

// Module is the ledger in a file, the default. What was paid is found again
// after a crash or a power failure. It survives config reloads. One process
// writes a file at a time; several gateways share a ledger in PostgreSQL.
//
// The file is opened when the server starts or with the first payment; while it
// cannot be, payments are refused with status 503 before anybody is asked for
// money.
type Module struct {
	// The database file. Beside it are others with longer names: `-wal` and `-shm`,
	// which are SQLite's and belong to it, and `.lock`. Placeholders of the environment are replaced. Default:
	// `paywall/payments.db` in Caddy's data directory.
	File string `json:"file,omitempty"`

	// How long finished payments are kept for accounting; `-1` is for ever. None is
	// removed before its authorization has ended. Default: `400d`.
	KeepFinished caddy.Duration `json:"keep_finished,omitempty"`

	// Replace the query of a finished payment's URL by a keyed hash, for privacy.
	// While goods are owed the query is kept, for they are owed to that URL alone.
	HashQueries bool `json:"hash_queries,omitempty"`

	shared *shared
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.ledgers.sqlite", New: func() caddy.Module { return new(Module) }}
}

// Provision finds the ledger that the config before used, or prepares one. It
// opens no file.
func (m *Module) Provision(ctx caddy.Context) error {
	path, err := m.path()
	if err != nil {
		return err
	}
	m.shared = use(path, Options{
		KeepFinished: time.Duration(m.KeepFinished),
		HashQueries:  m.HashQueries,
		Logger:       ctx.Logger(),
	})
	return nil
}

// path is where the file is.
func (m *Module) path() (string, error) {
	path, err := caddy.NewReplacer().ReplaceOrErr(m.File, true, true)
	if err != nil {
		return "", fmt.Errorf("file: %w", err)
	}
	if path == "" {
		path = DefaultFile()
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("file: %w", err)
	}
	return path, nil
}

// Where implements ledger.Placed.
func (m *Module) Where() string {
	path, err := m.path()
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil { // there is no file yet
		path = filepath.Join(dir, filepath.Base(path))
	}
	return "sqlite " + path
}

// Exists returns an error if there is no such file yet.
func (m *Module) Exists() error {
	path, err := m.path()
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no ledger at %s: %w", path, err)
	}
	return nil
}

// DefaultFile is where the ledger is unless told otherwise.
func DefaultFile() string {
	return filepath.Join(caddy.AppDataDir(), "paywall", "payments.db")
}

// Traffic is where the counts of requests are kept: in a file beside the ledger.
func (m *Module) Traffic() traffic.Store {
	path, err := m.path()
	if err != nil {
		return traffic.Nowhere{} // nor is there a ledger
	}
	return traffic.NewSQLite(traffic.FileBeside(path))
}

// Cleanup implements caddy.CleanerUpper. Requests under way go on.
func (m *Module) Cleanup() error {
	if m.shared != nil {
		m.shared.leave()
	}
	return nil
}

// Open opens the file if it is not open; calls of the other methods do so too.
// It is tried again with every call, once in a second.
func (m *Module) Open(ctx context.Context) error {
	_, err := m.shared.get(ctx)
	return err
}

// on calls the ledger, opened.
func on[T any](ctx context.Context, m *Module, call func(*Ledger) (T, error)) (result T, err error) {
	l, err := m.shared.get(ctx)
	if err != nil {
		return result, err
	}
	return call(l)
}

// Claim implements ledger.Ledger.
func (m *Module) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	return on(ctx, m, func(l *Ledger) (ledger.Claim, error) { return l.Claim(ctx, p, lease) })
}

// Take implements ledger.Ledger.
func (m *Module) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	return on(ctx, m, func(l *Ledger) (ledger.Claim, error) { return l.Take(ctx, key, to, lease) })
}

// Renew implements ledger.Ledger.
func (m *Module) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	_, err := on(ctx, m, func(l *Ledger) (struct{}, error) { return struct{}{}, l.Renew(ctx, c, lease) })
	return err
}

// Move implements ledger.Ledger.
func (m *Module) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	return on(ctx, m, func(l *Ledger) (ledger.Payment, error) { return l.Move(ctx, c, ch) })
}

// Get implements ledger.Ledger.
func (m *Module) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	return on(ctx, m, func(l *Ledger) (ledger.Payment, error) { return l.Get(ctx, key) })
}

// List implements ledger.Ledger.
func (m *Module) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		l, err := m.shared.get(ctx)
		if err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		l.List(ctx, f)(yield)
	}
}

// RememberGenesis implements ledger.Chains.
func (m *Module) RememberGenesis(ctx context.Context, network, hash string) error {
	_, err := on(ctx, m, func(l *Ledger) (struct{}, error) { return struct{}{}, l.RememberGenesis(ctx, network, hash) })
	return err
}

// Secret implements ledger.Secrets.
func (m *Module) Secret(ctx context.Context) ([]byte, error) {
	return on(ctx, m, func(l *Ledger) ([]byte, error) { return l.Secret(ctx) })
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	ledger sqlite [<file>] {
//		keep_finished <duration>|forever
//		hash_queries
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	if d.NextArg() {
		m.File = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		if seen[word] {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		args := d.RemainingArgs()
		switch {
		case word == "keep_finished" && len(args) == 1 && args[0] == "forever":
			m.KeepFinished = -1
		case word == "keep_finished" && len(args) == 1:
			keep, err := caddy.ParseDuration(args[0])
			if err != nil || keep <= 0 {
				return d.Errf("keep_finished: %q is no duration; write one like 400d, or forever", args[0])
			}
			m.KeepFinished = caddy.Duration(keep)
		case word == "hash_queries" && len(args) == 0:
			m.HashQueries = true
		case word == "keep_finished" || word == "hash_queries":
			return d.ArgErr()
		default:
			return d.Errf("unknown word %q; ledger sqlite knows keep_finished and hash_queries", word)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Module)(nil)
	_ caddy.CleanerUpper    = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
	_ ledger.Ledger         = (*Module)(nil)
	_ ledger.Chains         = (*Module)(nil)
	_ ledger.Secrets        = (*Module)(nil)
	_ ledger.Placed         = (*Module)(nil)
)
