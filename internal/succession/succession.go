// Package succession knows in which ledgers a process sells and has sold, so that a config
// with another ledger forgets nothing: what is owed or in doubt in the one before is still
// seen to, and what was used there buys nothing here.
package succession

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Ledgers are those of all configs of a process. The zero value has none.
type Ledgers struct {
	mu      sync.Mutex
	configs []*Config // that are loaded, the latest one last
}

// Loaded is a ledger that a config has loaded.
type Loaded struct {
	// Raw is what the config says of it.
	Raw    json.RawMessage
	Ledger ledger.Ledger
}

// Place tells ledgers apart: two of one place are one ledger.
func Place(raw json.RawMessage, l any) string {
	if placed, ok := l.(ledger.Placed); ok {
		if where := placed.Where(); where != "" {
			return where
		}
	}
	return string(raw)
}

// Config is what one config has of ledgers.
type Config struct {
	// Ledger sells in the config's own, and knows the others.
	Ledger *ledger.Successor
	// HasSold says whether something can have been sold in it; nil: it can. An operator who
	// takes a ledger back that could never be reached leaves nothing behind there.
	HasSold func() bool

	of      *Ledgers
	own     Loaded
	formers []*former
	forget  []func() // by which earlier configs forget the own ledger
	logger  *zap.Logger
}

// former is a ledger in which was sold before.
type former struct {
	Loaded
	named bool // in the config, and not kept by the process alone
	idle  atomic.Bool
}

// SameError is for a former ledger that is the current one, or another former one.
type SameError struct{ Name string }

func (e SameError) Error() string {
	return fmt.Sprintf("former_ledger: %s is named as a ledger already; a former ledger is another one, in which was sold before", e.Name)
}

// Enter makes that of a new config, from its ledger and the former ones that it names. It
// returns what those are that it does not name and that have to be kept all the same; the
// config loads them too, and then calls Keep. Configs that are loaded already know its
// ledger from now on.
func (s *Ledgers) Enter(own Loaded, named []Loaded, logger *zap.Logger) (_ *Config, kept []json.RawMessage, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Config{Ledger: ledger.WithFormer(own.Ledger, logger), of: s, own: own, logger: logger}
	places := []string{Place(own.Raw, own.Ledger)}
	for _, l := range named {
		place := Place(l.Raw, l.Ledger)
		if slices.Contains(places, place) {
			return nil, nil, SameError{ledger.Name(l.Ledger)}
		}
		places = append(places, place)
		c.add(l, true)
	}
	keep := func(l Loaded) {
		if place := Place(l.Raw, l.Ledger); !slices.Contains(places, place) {
			places = append(places, place)
			kept = append(kept, l.Raw)
		}
	}
	if len(s.configs) > 0 {
		latest := s.configs[len(s.configs)-1]
		if latest.HasSold == nil || latest.HasSold() {
			keep(latest.own)
		}
		for _, f := range latest.formers {
			// Who has taken one out of the config has given it up.
			if !f.named && !f.idle.Load() {
				keep(f.Loaded)
			}
		}
	}
	for _, earlier := range s.configs {
		if Place(earlier.own.Raw, earlier.own.Ledger) != places[0] {
			c.forget = append(c.forget, earlier.Ledger.Know(own.Ledger))
		}
	}
	s.configs = append(s.configs, c)
	return c, kept, nil
}

// Keep adds the ledgers that have to be kept; see Enter.
func (c *Config) Keep(kept []Loaded) {
	for _, l := range kept {
		c.add(l, false)
	}
}

func (c *Config) add(l Loaded, named bool) {
	c.formers = append(c.formers, &former{Loaded: l, named: named})
	c.Ledger.Know(l.Ledger)
}

// Leave ends what Enter began, when the config is cleaned up.
func (c *Config) Leave() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.configs = slices.DeleteFunc(c.of.configs, func(other *Config) bool { return other == c })
	for _, forget := range c.forget {
		forget()
	}
}
