package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/traffic"
)

func init() {
	caddy.RegisterModule(Module{})
}

// Module is a ledger in a PostgreSQL database, which any number of gateways
// share: of all who are presented with one payment, one goes on. It survives
// config reloads. The tables are made when they are missing; their names begin
// with `paywall_`.
type Module struct {
	// Where the database is, and who we are to it: a URL such as
	// `postgres://user:password@host/database?sslmode=verify-full`, or words such
	// as `host=/run/postgresql dbname=paywall`. Placeholders such as
	// `{env.PAYWALL_DSN}` and `{file./etc/paywall/dsn}` are replaced, and keep the
	// password out of the config.
	DSN string `json:"dsn,omitempty"`

	// How long to keep finished payments, for accounting, after the time for which
	// the gateway itself needs them; `-1` is for ever. Default: `400d`.
	KeepFinished caddy.Duration `json:"keep_finished,omitempty"`

	// Replace the query of a finished payment's URL by a keyed hash, for privacy.
	// While goods are owed the query is kept, for they are owed to that URL alone.
	// The database has old versions of rows until it cleans up (VACUUM).
	HashQueries bool `json:"hash_queries,omitempty"`

	// How many connections to open at most. Default: `8`.
	MaxConnections int `json:"max_connections,omitempty"`

	*Ledger `json:"-"`

	poolKey string // of a reference in the pool
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.ledgers.postgres", New: func() caddy.Module { return new(Module) }}
}

// ledgers keeps the connections across reloads.
var ledgers = caddy.NewUsagePool()

// kept is a ledger in the pool. Requests of an old config may still use it when
// it leaves the pool.
type kept struct{ *Ledger }

func (k kept) Destruct() error {
	k.Retire()
	return nil
}

// Provision takes the ledger that the config before used, or makes one. It
// connects to nothing.
func (m *Module) Provision(ctx caddy.Context) error {
	dsn, err := caddy.NewReplacer().ReplaceOrErr(m.DSN, true, true)
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	if m.MaxConnections < 0 {
		return fmt.Errorf("max_connections: %d is negative", m.MaxConnections)
	}
	if dsn == "" {
		return errors.New("no dsn; write `ledger postgres {env.PAYWALL_DSN}`")
	}
	logger := ctx.Logger()
	options := Options{
		DSN: dsn, KeepFinished: time.Duration(m.KeepFinished), MaxConnections: m.MaxConnections, Logger: logger,
		Presence: filepath.Join(caddy.AppDataDir(), "paywall", "gateways"),
	}
	key := fmt.Sprintf("%x %d", sha256.Sum256([]byte(dsn)), m.MaxConnections)
	pooled, _, err := ledgers.LoadOrNew(key, func() (caddy.Destructor, error) {
		l, err := New(options)
		if err != nil {
			return nil, fmt.Errorf("dsn: %w", err)
		}
		if l.config.ConnConfig.Password != "" && dsn == m.DSN {
			logger.Warn("the database password is in the config, which shows it to all who can read it; "+
				"write {env.*} or {file.*} instead", zap.String("option", "ledger postgres"))
		}
		return kept{l}, nil
	})
	if err != nil {
		return err
	}
	m.poolKey, m.Ledger = key, pooled.(kept).Ledger
	m.SetKeepFinished(time.Duration(m.KeepFinished))
	m.SetHashQueries(m.HashQueries)
	return nil
}

// Where implements ledger.Placed: the server and the database, without who we are to it.
func (m *Module) Where() string {
	dsn, err := caddy.NewReplacer().ReplaceOrErr(m.DSN, true, true)
	if err != nil {
		return ""
	}
	config, err := parseDSN(dsn)
	if err != nil {
		return ""
	}
	c := config.ConnConfig
	where := fmt.Sprintf("postgres %s/%s", net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database)
	if path := c.RuntimeParams["search_path"]; path != "" {
		where += " " + path
	}
	return where
}

// Traffic is where the counts of requests are kept: in the same database.
func (m *Module) Traffic() traffic.Store { return traffic.NewPostgres(m.config) }

// TrafficReader reads the counts in a database.
func TrafficReader(dsn string) (*traffic.Postgres, error) {
	config, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return traffic.NewPostgresReader(config), nil
}

// Cleanup implements caddy.CleanerUpper.
func (m *Module) Cleanup() error {
	if m.poolKey == "" {
		return nil
	}
	_, err := ledgers.Delete(m.poolKey)
	return err
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	ledger postgres <dsn> {
//		keep_finished   <duration>|forever
//		hash_queries
//		max_connections <number>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	if !d.Args(&m.DSN) || d.NextArg() {
		return d.Err("want `ledger postgres <dsn>`; a DSN of several words goes in quotes")
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word, args := d.Val(), d.RemainingArgs()
		if seen[word] {
			return d.Errf("%s given twice", word)
		}
		seen[word] = true
		switch word {
		case "hash_queries":
			if len(args) > 0 {
				return d.Err("hash_queries: want no value")
			}
			m.HashQueries = true
			continue
		case "keep_finished", "max_connections":
			if len(args) != 1 {
				return d.Errf("%s: want one value", word)
			}
		default:
			return d.Errf("unknown word %q; the postgres ledger knows keep_finished, hash_queries and max_connections", word)
		}
		switch value := args[0]; {
		case word == "max_connections":
			n, err := strconv.ParseUint(value, 10, 15)
			if err != nil || n == 0 {
				return d.Errf("max_connections: %q is not a number of connections", value)
			}
			m.MaxConnections = int(n)
		case value == "forever":
			m.KeepFinished = -1
		default:
			keep, err := caddy.ParseDuration(value)
			if err != nil || keep <= 0 {
				return d.Errf("keep_finished: %q is no duration; write one like 400d, or forever", value)
			}
			m.KeepFinished = caddy.Duration(keep)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Module)(nil)
	_ caddy.CleanerUpper    = (*Module)(nil)
	_ caddyfile.Unmarshaler = (*Module)(nil)
)
