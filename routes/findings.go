package routes

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says what becomes of a config with the finding.
type Severity string

// Severities.
const (
	// Error: the config must not run.
	Error Severity = "error"
	// Warning: it may be meant so.
	Warning Severity = "warning"
)

// Rules that findings break: stable names for scripts.
const (
	RuleAnsweredBefore = "answered_before"  // something answers before the paywall
	RuleAround         = "around"           // the goods can be had around it
	RuleCache          = "cache_outside"    // a cache stands before it
	RuleErrorRoute     = "error_route"      // an error route serves goods
	RuleIntercept      = "refusal_replaced" // the 402 is replaced by another answer
	RuleTwoBlocks      = "two_blocks"       // two blocks where there should be one
	RuleNeverReached   = "never_reached"    // a price that no request comes to
	RuleRewritten      = "ambiguous"        // a rewrite makes the price ambiguous
	RuleAlias          = "alias"            // a rewrite behind it leads to what is priced
	RuleRetries        = "retries"          // a proxy repeats what has effects
	RuleAccessLog      = "access_log"       // payments are logged in the clear
	RuleClientIP       = "client_ip"        // clients choose the address that a matcher looks at
	RuleDetour         = "path_by_detour"   // a line's matcher knows one spelling of the path
	RuleMethodDetour   = "method_by_detour" // a line's matcher knows one way to name the method
	RuleHostDetour     = "host_by_detour"   // a line's matcher knows one spelling of the host
	RuleNotChecked     = "not_checked"      // there are too many routes
)

// Finding is something that the operator should know.
type Finding struct {
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	// Site is whose paywall it is about.
	Site string `json:"site"`
	// Message says what is wrong, and what to do.
	Message string `json:"message"`
}

// String is the finding on one line.
func (f Finding) String() string { return fmt.Sprintf("%s: %s", f.Site, f.Message) }

// Check looks for mistakes in a config, errors first.
func Check(c *Config) ([]Finding, error) {
	w := newWalk(c)
	if err := w.servers(); err != nil {
		return nil, err
	}
	return w.check(), nil
}

// check applies the rules to all gates, once they are found.
func (w *walk) check() []Finding {
	for _, g := range w.gates {
		w.checkGate(g)
	}
	if w.incomplete {
		w.findings = append(w.findings, Finding{
			Severity: Warning, Rule: RuleNotChecked, Site: "all sites",
			Message: "the routes are too many or too deep to be checked; look with `caddy paywall check`",
		})
	}
	slices.SortStableFunc(w.findings, func(a, b Finding) int {
		if a.Severity == b.Severity {
			return 0
		}
		return cmp.Compare(a.Severity, b.Severity) // "error" before "warning"
	})
	return slices.CompactFunc(w.findings, func(a, b Finding) bool { return a == b })
}

// Gates are the paywall blocks of a config.
func Gates(c *Config) ([]*Gate, error) {
	w := newWalk(c)
	if err := w.servers(); err != nil {
		return nil, err
	}
	for _, g := range w.gates {
		g.Upstreams = w.upstreams(g)
	}
	return w.gates, nil
}

// find records a finding, once.
func (w *walk) find(g *Gate, s Severity, rule, format string, args ...any) {
	f := Finding{Severity: s, Rule: rule, Site: g.site(), Message: fmt.Sprintf(format, args...)}
	if !slices.Contains(w.findings, f) {
		w.findings = append(w.findings, f)
	}
}

// checkGate applies the rules to one paywall block.
func (w *walk) checkGate(g *Gate) {
	w.checkReach(g)
	told := w.checkBefore(g)
	w.checkOuterGates(g)
	w.checkWraps(g)
	w.checkErrors(g)
	told = append(told, w.checkAround(g)...)
	w.checkInner(g, told)
	w.checkBehind(g, told)
	w.checkRetries(g)
	w.checkAccessLog(g)
	w.checkSources(g)
}
