// Package check looks at a paywall from outside, as those would who do not want
// to pay: it asks for priced URLs in every spelling, method and protocol version,
// never with a payment, and reports what comes that is not a refusal. It reports
// too what honest clients stumble over.
package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/time/rate"
)

// Options say how to look. The zero value of each has a default.
type Options struct {
	// Rate is the most requests a second. Default: 20.
	Rate int
	// MaxRequests bounds all requests together. Default: 2000.
	MaxRequests int
	// Timeout bounds one request. Default: 30s.
	Timeout time.Duration
	// Insecure accepts any certificate.
	Insecure bool
	// Connect is an address to connect to in place of the URL's own.
	Connect string
	// AllMethods sends methods that act too (POST, PUT, PATCH, DELETE). Where the
	// gate is open, they act.
	AllMethods bool
	// Pages are HTML pages, files or URLs, whose resources must not be priced.
	Pages []string
	// Progress is told what is done next.
	Progress func(format string, args ...any)
}

// Target is a priced URL.
type Target struct {
	URL    *url.URL
	Method string
	// Made says that the path was made from a pattern, so that nobody knows
	// whether the upstream has it.
	Made bool
	// Line is the line of the price list, if it is known.
	Line string
	// Upstreams are the origins of the servers behind the paywall, if they are
	// known.
	Upstreams []string
}

// Severity says how bad a finding is.
type Severity string

// Severities.
const (
	// Open: something came without a payment.
	Open Severity = "open"
	// Warning: nothing came, but clients will stumble, or it is not clear.
	Warning Severity = "warning"
)

// Finding is something that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	URL      string   `json:"url"`
	// Request is what was asked, where it is not a plain GET of the URL.
	Request  string `json:"request,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Status   int    `json:"status,omitempty"`
	Message  string `json:"message"`
}

// Report is what was found.
type Report struct {
	Findings []Finding `json:"findings"`
	// Targets is how many URLs were asked for, Complete how many in every way.
	Targets  int `json:"targets"`
	Complete int `json:"complete"`
	Requests int `json:"requests"`
	// Unanswered is how many requests got no answer, or 429: nothing is known of
	// these.
	Unanswered int `json:"unanswered"`
	// Protocols are the versions of HTTP that answered.
	Protocols []string `json:"protocols"`
	// Unreachable are targets from which no answer came, and why.
	Unreachable []string `json:"unreachable"`
	// Bounded says that MaxRequests ended the check.
	Bounded bool `json:"bounded"`
}

// checker is one run.
type checker struct {
	Options
	report  *Report
	limiter *rate.Limiter
	wires   map[string]*wires // by origin
	tried   map[string]bool   // pages and hosts
}

// Run checks the targets. It returns an error only when the context ends; what
// cannot be reached is in the report.
func Run(ctx context.Context, o Options, targets []Target) (*Report, error) {
	if o.Rate <= 0 {
		o.Rate = 20
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = 2000
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	c := &checker{
		Options: o, limiter: rate.NewLimiter(rate.Limit(o.Rate), 1), wires: map[string]*wires{}, tried: map[string]bool{},
		report: &Report{Targets: len(targets), Findings: []Finding{}, Protocols: []string{}, Unreachable: []string{}},
	}
	defer c.close()

	// Every target first as it is, so that the bound leaves none out unless it is
	// very low; then each in every way.
	var priced []Target
	for _, t := range targets {
		if c.plain(ctx, t) {
			priced = append(priced, t)
		}
		if c.report.Bounded || ctx.Err() != nil {
			break
		}
	}
	for _, page := range o.Pages {
		c.page(ctx, page, targets)
	}
	for _, t := range priced {
		if c.report.Bounded || ctx.Err() != nil {
			break
		}
		c.Progress("%s in every way", t.URL)
		c.spellings(ctx, t)
		c.methods(ctx, t)
		c.headers(ctx, t)
		c.hosts(ctx, t)
		c.upstreams(ctx, t)
		if !c.report.Bounded {
			c.report.Complete++
		}
	}
	return c.report, ctx.Err()
}

// find records a finding.
func (c *checker) find(t Target, a ask, r *answer, s Severity, rule, format string, args ...any) {
	f := Finding{Severity: s, Rule: rule, URL: t.URL.String(), Request: a.describe(t), Message: fmt.Sprintf(format, args...)}
	if r != nil {
		f.Protocol, f.Status = a.proto, r.status
	}
	for _, have := range c.report.Findings {
		if s == Warning {
			have.Protocol = f.Protocol // once is enough
		}
		if have == f {
			return
		}
	}
	c.report.Findings = append(c.report.Findings, f)
}

// maxLost is how many answers may be lost before no more are asked for again: it
// is not that the machine is busy then.
const maxLost = 10

// send sends a request, and once more if no answer came: a busy machine loses
// one.
func (c *checker) send(ctx context.Context, t Target, a ask) (*answer, error) {
	w := c.wiresTo(t.URL)
	r, err := c.sendOnce(ctx, w, a)
	if unanswered(err) && ctx.Err() == nil && w.mayAnswer(a.proto) && c.report.Unanswered < maxLost {
		r, err = c.sendOnce(ctx, w, a)
	}
	if err == nil && r.status == http.StatusTooManyRequests || unanswered(err) && w.spoke(a.proto) {
		c.report.Unanswered++
	}
	return r, err
}

// sendOnce sends a request, at the pace and within the bound of the check.
func (c *checker) sendOnce(ctx context.Context, w *wires, a ask) (*answer, error) {
	if c.report.Requests >= c.MaxRequests {
		c.report.Bounded = true
		return nil, errBounded
	}
	if err := c.limiter.Wait(ctx); err != nil {
		return nil, err
	}
	c.report.Requests++
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := w.send(bounded, a)
	if errors.Is(err, errSpelling) {
		c.report.Requests--
	}
	return r, err
}

// unanswered reports whether an error means that nothing is known of a request.
func unanswered(err error) bool {
	return err != nil && !refused(err) && !errors.Is(err, errSpelling) && !errors.Is(err, errBounded)
}

// wiresTo are the connections to the origin of a URL.
func (c *checker) wiresTo(u *url.URL) *wires {
	origin := u.Scheme + "://" + u.Host
	if c.wires[origin] == nil {
		c.wires[origin] = newWires(u, c.Connect, c.Insecure, c.Timeout)
	}
	return c.wires[origin]
}

func (c *checker) close() {
	for _, w := range c.wires {
		w.close()
	}
}

// method is the method to ask with: the one that the line names.
func (t Target) method() string {
	if t.Method == "" {
		return http.MethodGet
	}
	return t.Method
}
