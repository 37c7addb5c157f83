package routes

import (
	"encoding/json"
	"slices"
	"strings"
)

// PaymentHeaders are the request headers that are money until they are settled,
// as access logs spell them.
var PaymentHeaders = []string{"Payment-Signature", "X-Payment"}

const (
	// accessLogger is the logger of access logs that have no name.
	accessLogger = "http.log.access"
	// errorLogger is the logger of errors. Those of clients (4xx) are debug
	// entries, and hold the request.
	errorLogger = "http.log.error"
)

// AccessLogs are a server's access logs.
type AccessLogs struct {
	Default     string          `json:"default_logger_name"`
	Names       map[string]list `json:"logger_names"`
	SkipHosts   []string        `json:"skip_hosts"`
	SkipUnnamed bool            `json:"skip_unmapped_hosts"`
}

// list is one string or several.
type list []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *list) UnmarshalJSON(b []byte) error {
	if one := ""; json.Unmarshal(b, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// checkAccessLog finds access logs of a priced site that would hold payments.
func (w *walk) checkAccessLog(g *Gate) {
	if w.config.InTheClear == nil {
		return
	}
	const add = "payments are money until they are settled; add to its `log`: format filter { request>headers>Payment-Signature delete; request>headers>X-Payment delete }"
	if w.config.InTheClear(errorLogger, true) {
		w.find(g, Warning, RuleAccessLog, "a log at level DEBUG writes the requests of errors, payment headers included; "+add)
	}
	logs := w.config.Servers[g.Server].Logs
	if logs == nil {
		return
	}
	for _, name := range logs.loggers(g.Hosts) {
		logger := accessLogger
		if name != "" {
			logger += "." + name
		}
		if w.config.InTheClear(logger, false) {
			w.find(g, Warning, RuleAccessLog,
				"the access log %s writes payment headers in the clear; "+add, logger)
		}
	}
}

// loggers are the names of the loggers that requests to the hosts go to.
func (l *AccessLogs) loggers(hosts []string) []string {
	var names []string
	if len(hosts) == 0 {
		if !l.SkipUnnamed {
			names = append(names, l.Default)
		}
		return names
	}
	for _, host := range hosts {
		if slices.Contains(l.SkipHosts, host) {
			continue
		}
		mapped := false
		for pattern, loggers := range l.Names {
			if hostCovers(pattern, host) {
				names = append(names, loggers...)
				mapped = true
			}
		}
		if !mapped && !l.SkipUnnamed {
			names = append(names, l.Default)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// logging is how a config writes logs.
type logging struct {
	Logs map[string]struct {
		Include []string        `json:"include"`
		Exclude []string        `json:"exclude"`
		Level   string          `json:"level"`
		Encoder json.RawMessage `json:"encoder"`
		Writer  struct {
			Output string `json:"output"`
		} `json:"writer"`
	} `json:"logs"`
}

// inTheClear says whether a log of the config writes payment headers of the
// logger's entries as they are.
func (l *logging) inTheClear(logger string, debug bool) bool {
	found := false
	for _, log := range l.Logs {
		if !accepts(log.Include, log.Exclude, logger) || log.Writer.Output == "discard" || debug && !strings.EqualFold(log.Level, "debug") {
			continue
		}
		if found = true; !filtered(log.Encoder) {
			return true
		}
	}
	_, hasDefault := l.Logs["default"]
	return !found && !hasDefault && !debug // Caddy's own default log takes everything
}

// accepts follows Caddy: the longer of two names decides.
func accepts(include, exclude []string, logger string) bool {
	longest := func(names []string) int {
		n := 0
		for _, name := range names {
			if strings.HasPrefix(logger+".", name+".") {
				n = max(n, len(name))
			}
		}
		return n
	}
	in, out := longest(include), longest(exclude)
	if slices.Contains(exclude, "*") || len(include) > 0 && in == 0 {
		return false
	}
	return in > out || len(include) == 0 && out == 0
}

// filtered reports whether an encoder removes or replaces both payment headers.
func filtered(encoder json.RawMessage) bool {
	var e struct {
		Format string                     `json:"format"`
		Fields map[string]json.RawMessage `json:"fields"`
		Wrap   json.RawMessage            `json:"wrap"`
	}
	if json.Unmarshal(encoder, &e) != nil {
		return false
	}
	switch e.Format {
	case "filter":
		return HidesPayments(func(field string) bool { _, ok := e.Fields[field]; return ok })
	case "append":
		return filtered(e.Wrap)
	default:
		return false
	}
}

// HidesPayments reports whether a filter for log fields covers the payment
// headers.
func HidesPayments(covers func(field string) bool) bool {
	if covers("request") || covers("request>headers") {
		return true
	}
	for _, name := range PaymentHeaders {
		if !covers("request>headers>" + name) {
			return false
		}
	}
	return true
}
