package postgres

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sessionSettings are those of every connection. A role or a database may have
// others, on which we must not depend.
var sessionSettings = map[string]string{
	"synchronous_commit":                  "on",
	"default_transaction_isolation":       "read committed",
	"statement_timeout":                   "3000",
	"lock_timeout":                        milliseconds(lockWait),
	"idle_in_transaction_session_timeout": "10000",
	"timezone":                            "UTC",
	// Plans are made once, also while the tables are empty, and must be good when
	// they are large: through the indexes.
	"plan_cache_mode":  "force_generic_plan",
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	"jit":              "off",
}

// parseDSN reads a DSN. Its errors do not repeat it: it may hold a password.
func parseDSN(dsn string) (*pgxpool.Config, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, errors.New("no DSN: where is the database?")
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the DSN cannot be read; want postgres://user:password@host/database?sslmode=verify-full, " +
			"with special characters in the password percent-encoded, or `host=/run/postgresql dbname=paywall`")
	}
	c := &config.ConnConfig.Config
	if err := wantPrivate(c); err != nil {
		return nil, err
	}
	maps.Copy(c.RuntimeParams, sessionSettings)
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "caddy-paywall"
	}
	c.ConnectTimeout = connectTimeout
	c.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	config.MinConns = 0
	config.MaxConnIdleTime = 5 * time.Minute
	config.MaxConnLifetime = time.Hour
	config.MaxConnLifetimeJitter = 10 * time.Minute
	config.HealthCheckPeriod = 15 * time.Second
	config.PingTimeout = time.Second
	return config, nil
}

// wantPrivate refuses a DSN by which a connection to another machine is encrypted
// or not, as the other side or somebody between likes. The default of the
// drivers, sslmode=prefer, is such a one.
func wantPrivate(c *pgconn.Config) error {
	plain, encrypted := map[string]bool{}, map[string]bool{}
	note := func(host string, tls bool) {
		if tls {
			encrypted[host] = true
		} else {
			plain[host] = true
		}
	}
	note(c.Host, c.TLSConfig != nil)
	for _, f := range c.Fallbacks {
		note(f.Host, f.TLSConfig != nil)
	}
	for host := range plain {
		if encrypted[host] && !local(host) {
			return fmt.Errorf("the DSN leaves open whether the connection to %s is encrypted; add sslmode=verify-full, "+
				"or sslmode=require if its certificate cannot be checked, or sslmode=disable in a network that nobody else can read", host)
		}
	}
	return nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}
