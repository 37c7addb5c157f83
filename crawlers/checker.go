package crawlers

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/crawlers/botauth"
	"github.com/caddy-paywall/caddy-paywall/crawlers/fetch"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// Config is what the operator of a site says about crawlers.
type Config struct {
	// Rows that are added to the table, or that say something else than a row of it. What
	// is left out is as it was.
	Agents []Crawler `json:"agents,omitempty"`

	// The DNS server that is asked for the names of addresses, such as `127.0.0.1` or
	// `[::1]:5353`. Default: the system's.
	Resolver string `json:"resolver,omitempty"`
}

// table makes a table of the facts and of what the operator says.
func (c Config) table() (*Table, error) {
	date, agents, err := Facts()
	if err != nil {
		return nil, err
	}
	for i, own := range c.Agents {
		is := func(a Crawler) bool { return strings.EqualFold(a.Token, own.Token) }
		if slices.ContainsFunc(c.Agents[:i], is) {
			return nil, fmt.Errorf("agent %s: given twice", own.Token)
		}
		switch i := slices.IndexFunc(agents, is); {
		case i >= 0:
			agents[i] = agents[i].with(own)
		case own.Kind == "":
			return nil, fmt.Errorf("there is no agent %s in the table; add `agent %s <kind>`", own.Token, own.Token)
		default:
			agents = append(agents, own)
		}
	}
	return NewTable(date, agents)
}

// with is a row with what the operator says instead.
func (c Crawler) with(own Crawler) Crawler {
	if own.Kind != "" {
		c.Kind = own.Kind
	}
	if own.Operator != "" {
		c.Operator = own.Operator
	}
	if own.RDNS != nil {
		c.RDNS = own.RDNS
	}
	if own.Ranges != nil {
		c.Ranges = own.Ranges
	}
	if own.Directories != nil {
		c.Directories = own.Directories
	}
	return c
}

// Environment is what a checker needs of the world.
type Environment struct {
	// Dir keeps published lists across restarts. Without it they are not kept.
	Dir string
	// Client fetches lists and directories. Default: one that leads nowhere but into the
	// public internet. Only tests have another one.
	Client *http.Client
	Logger *zap.Logger
}

// Checker says who asks.
type Checker struct {
	table      *Table
	lists      map[*Crawler][]*list
	hosts      *hosts
	signatures *botauth.Verifier
	life       context.Context
	end        context.CancelFunc
	logger     *atomic.Pointer[zap.Logger]
}

// New makes a checker. It reads files and asks nobody anything; what it fetches later, it
// fetches in the background.
func New(config Config, env Environment) (*Checker, error) {
	table, err := config.table()
	if err != nil {
		return nil, fmt.Errorf("crawlers: %w", err)
	}
	resolver, err := parseResolver(config.Resolver)
	if err != nil {
		return nil, fmt.Errorf("crawlers: %w", err)
	}
	if env.Logger == nil {
		env.Logger = zap.NewNop()
	}
	listClient, directoryClient := fetch.NewClient(3), fetch.NewClient(0)
	if env.Client != nil {
		listClient, directoryClient = env.Client, env.Client
	}
	c := &Checker{table: table, lists: map[*Crawler][]*list{}, logger: new(atomic.Pointer[zap.Logger])}
	c.logger.Store(env.Logger)
	bySource := map[string]*list{}
	for _, a := range table.agents {
		for _, source := range a.Ranges {
			l := bySource[source]
			if l == nil {
				l = &list{source: source, kept: keptAs(env.Dir, source), client: listClient, logger: c.logger}
				if err := l.open(); err != nil {
					return nil, fmt.Errorf("crawlers: %w", err)
				}
				bySource[source] = l
			}
			c.lists[a] = append(c.lists[a], l)
		}
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.hosts = newHosts(c.life, resolverAt(resolver), func(name string) bool {
		return slices.ContainsFunc(table.agents, func(a *Crawler) bool { return a.hasName(name) })
	})
	c.signatures = botauth.New(c.life, directoryClient)
	return c, nil
}

// Destruct ends what goes on in the background. Requests that are still running keep what
// is known. It implements caddy.Destructor.
func (c *Checker) Destruct() error {
	c.end()
	return nil
}

// LogTo has a checker that outlives a reload write to the log of the config that runs.
func (c *Checker) LogTo(logger *zap.Logger) { c.logger.Store(logger) }

// Table is what the checker knows.
func (c *Checker) Table() *Table { return c.table }

// Expect says that rows are going to be asked for: their lists are fetched now and not
// when the first request comes.
func (c *Checker) Expect(rows ...*Crawler) {
	for _, row := range rows {
		for _, l := range c.lists[row] {
			l.watch(c.life)
		}
	}
}

// claimed is the row of what a client says it is, or nil: by its User-Agent, or by the
// domain that it says it signs for, since agents that drive a browser call themselves what
// the browser does.
func (c *Checker) claimed(r *http.Request) *Crawler {
	found := c.table.Find(r.UserAgent())
	if found != nil && found.Kind != Tool {
		return found
	}
	for _, domain := range botauth.Claims(r.Header) {
		if row, ok := c.table.WithDirectory(domain); ok {
			return row
		}
	}
	return found
}

// Claim is who a client says it is. It costs a microsecond and asks nobody.
func (c *Checker) Claim(r *http.Request) Client {
	return claimOf(c.claimed(r), r)
}

// claimOf is who a client says it is, where it is claimed to be of a row, or of none.
func claimOf(claimed *Crawler, r *http.Request) Client {
	if claimed != nil {
		return claimed.as(Claimed)
	}
	return nameless(r.UserAgent())
}

// firstLook is how long a request waits for what is not known yet: the name of an address,
// or the keys of a domain. A search engine that was charged the first time it comes would
// stay away; half a second once a day it does not mind.
const firstLook = 500 * time.Millisecond

// Who is who asks, by what it says of itself and, as far as that can be found out, by
// proof. The client's address is what Caddy believes it to be. The first time that an
// address or a signer is seen, a request may wait for half a second; who could not be
// found out by then is not verified.
func (c *Checker) Who(r *http.Request, client netip.Addr) Client {
	return c.who(r, client, firstLook)
}

// Glance is like Who, and does not wait: what is not known yet is found out for the
// requests that follow.
func (c *Checker) Glance(r *http.Request, client netip.Addr) Client {
	return c.who(r, client, 0)
}

// who asks for proofs, the cheap ones first. Proof of another name than the one that is
// claimed is proof of that name: who signs as an agent and says that it is a search
// engine is the agent.
func (c *Checker) who(r *http.Request, client netip.Addr, within time.Duration) Client {
	claimed := c.claimed(r)
	if early := r.TLS != nil && !r.TLS.HandshakeComplete; early {
		client = netip.Addr{} // that of early data can be anybody's, and so can the data
	} else if claimed != nil && c.isListed(claimed, client) {
		return claimed.as(Verified)
	}
	isSigned, hasNames := botauth.IsSigned(r.Header), claimed != nil && len(claimed.RDNS) > 0
	if !client.IsValid() || !isSigned && !hasNames {
		return claimOf(claimed, r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	if isSigned {
		domain, err := c.signatures.Verify(ctx, messageOf(r), client, func(domain string) bool {
			_, known := c.table.WithDirectory(domain)
			return known
		})
		if row, known := c.table.WithDirectory(domain); err == nil && known {
			if claimed != nil && slices.Contains(claimed.Directories, domain) {
				row = claimed
			}
			return row.as(Verified)
		}
		if logger := c.logger.Load(); logger != nil {
			logger.Debug("a request's signature is not verified", zap.String("domain", domain), zap.Error(err))
		}
	}
	if hasNames && slices.ContainsFunc(c.hosts.names(ctx, client), claimed.hasName) {
		return claimed.as(Verified)
	}
	return claimOf(claimed, r)
}

// isListed says whether an address is in a row's lists.
func (c *Checker) isListed(row *Crawler, client netip.Addr) bool {
	listed := false
	for _, l := range c.lists[row] {
		l.watch(c.life)
		listed = listed || l.prefixes.Load().contains(client)
	}
	return listed
}

// hasName says whether a name is one of the row's hosts'.
func (c *Crawler) hasName(name string) bool {
	return slices.ContainsFunc(c.RDNS, func(domain string) bool { return isUnder(name, domain) })
}

// messageOf is a request as its client has sent it, whatever a rewrite has made of it, and
// whatever host a price list is being asked about.
func messageOf(r *http.Request) *botauth.Message {
	m := &botauth.Message{Method: r.Method, Scheme: "http", Host: r.Host, Target: request.URI(r), Header: r.Header}
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		m.Method = original.Method
	}
	if replacer, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if host, ok := replacer.GetString("http.request.hostport"); ok {
			m.Host = host
		}
	}
	if r.TLS != nil || request.IsTrusted(r) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		m.Scheme = "https"
	}
	return m
}
