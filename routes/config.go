// Package routes looks at the HTTP routes of a Caddy config for what one paywall
// block cannot see: whether something answers a priced path before the paywall
// or around it. It reads JSON and touches nothing.
//
// A mistake that surely opens the gate, or surely makes a price useless, is an
// error; what may be meant so is a warning.
package routes

import (
	"encoding/json"
	"fmt"
)

// Config is what the walk needs to know of a Caddy config.
type Config struct {
	// Servers are the HTTP servers by name.
	Servers map[string]*Server `json:"servers"`
	// HTTPPort is the port that plain HTTP is served on; 0 means 80.
	HTTPPort int `json:"http_port"`
	// HTTPSPort is the port that HTTPS is served on; 0 means 443.
	HTTPSPort int `json:"https_port"`

	// InTheClear says whether a log that takes entries of the named logger, or of
	// its debug level, would write payment headers as they are.
	InTheClear func(logger string, debug bool) bool `json:"-"`
}

// Server is an HTTP server.
type Server struct {
	Listen []string          `json:"listen"`
	Routes []Route           `json:"routes"`
	Errors *Errors           `json:"errors"`
	Named  map[string]*Route `json:"named_routes"`
	TLS    []any             `json:"tls_connection_policies"`
	Auto   struct {
		Disabled bool     `json:"disable"`
		Skip     []string `json:"skip"`
	} `json:"automatic_https"`
	Logs *AccessLogs `json:"logs"`

	// Whom the server believes what they say of the client's address, and whether
	// it takes the last address that they vouch for, not the first one.
	TrustedProxies json.RawMessage `json:"trusted_proxies"`
	TrustedUnix    bool            `json:"trusted_proxies_unix"`
	TrustedStrict  int             `json:"trusted_proxies_strict"`
}

// clientChoosesAddress says whether what the server takes for the client's address
// can be what the client says: most proxies add to X-Forwarded-For what they see, and
// without the word strict Caddy takes what stands there first.
func (s *Server) clientChoosesAddress() bool {
	trusts := s.TrustedUnix || len(s.TrustedProxies) > 0 && string(s.TrustedProxies) != "null"
	return trusts && s.TrustedStrict <= 0
}

// Errors are the routes for errors, of a server or of a subroute.
type Errors struct {
	Routes []Route `json:"routes"`
}

// Route is one route of a list.
type Route struct {
	Group    string       `json:"group"`
	Match    []matcherSet `json:"match"`
	Handle   []handler    `json:"handle"`
	Terminal bool         `json:"terminal"`
}

// matcherSet is matchers by their names; all of them must match.
type matcherSet map[string]json.RawMessage

// handler is a handler module, with those of its members that matter to us.
type handler struct {
	Name   string
	Raw    json.RawMessage
	Routes []Route
	Errors *Errors
	// Responses are the routes for answers of reverse_proxy and intercept.
	Responses []response
}

// response is an entry of handle_response.
type response struct {
	Match *struct {
		StatusCode []int `json:"status_code"`
	} `json:"match"`
	StatusCode any     `json:"status_code"`
	Routes     []Route `json:"routes"`
}

// UnmarshalJSON implements json.Unmarshaler. A handler of another module may
// have members with our names and other types: then they say nothing.
func (h *handler) UnmarshalJSON(b []byte) error {
	var name struct {
		Handler string `json:"handler"`
	}
	if err := json.Unmarshal(b, &name); err != nil {
		return err
	}
	h.Name, h.Raw = name.Handler, append(json.RawMessage(nil), b...)
	var w struct {
		Routes    []Route    `json:"routes"`
		Errors    *Errors    `json:"errors"`
		Responses []response `json:"handle_response"`
	}
	err := json.Unmarshal(b, &w)
	switch h.Name {
	case "subroute", "reverse_proxy", "intercept":
		if err != nil {
			return fmt.Errorf("handler %s: %w", h.Name, err)
		}
	}
	if err == nil {
		h.Routes, h.Errors, h.Responses = w.Routes, w.Errors, w.Responses
	}
	return nil
}

// read reads the members of a handler that v has.
func (h *handler) read(v any) bool { return json.Unmarshal(h.Raw, v) == nil }

// Parse reads a whole Caddy config in JSON.
func Parse(config []byte) (*Config, error) {
	var w struct {
		Apps struct {
			HTTP Config `json:"http"`
		} `json:"apps"`
		Logging logging `json:"logging"`
	}
	if err := json.Unmarshal(config, &w); err != nil {
		return nil, fmt.Errorf("reading the routes of the config: %w", err)
	}
	c := &w.Apps.HTTP
	c.InTheClear = w.Logging.inTheClear
	return c, nil
}

// ParseHTTP reads the http app of a config in JSON.
func ParseHTTP(app []byte) (*Config, error) {
	c := new(Config)
	if err := json.Unmarshal(app, c); err != nil {
		return nil, fmt.Errorf("reading the routes of the config: %w", err)
	}
	return c, nil
}
