package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Auth is how requests to a facilitator prove who sends them. All secrets may be
// `{env.*}` or `{file.*}` placeholders, which are read once, when the config
// loads; only so they stay out of config dumps.
type Auth struct {
	// One of:
	//
	// - `bearer`: `token` is sent as a bearer token.
	// - `header`: `value` is sent in the header `name`.
	// - `cdp`: a token for each request is signed with the Coinbase Developer
	//   Platform key `key_id` and `key_secret`.
	Type string `json:"type,omitempty"`

	// For `bearer`: the token.
	Token string `json:"token,omitempty"`

	// For `header`: the name of the header.
	Name string `json:"name,omitempty"`

	// For `header`: the value of the header.
	Value string `json:"value,omitempty"`

	// For `cdp`: the id of the API key.
	KeyID string `json:"key_id,omitempty"`

	// For `cdp`: the secret of the API key, either base64 (Ed25519) or PEM
	// (ES256); in PEM, line breaks may be written as `\n`.
	KeySecret string `json:"key_secret,omitempty"`
}

// authorizer adds credentials to a request.
type authorizer interface {
	// authorize sets headers of r, whose URL and method are final.
	authorize(r *http.Request) error
	// secrets lists what must not show in a log.
	secrets() []string
}

// anonymous sends no credentials.
type anonymous struct{}

func (anonymous) authorize(*http.Request) error { return nil }
func (anonymous) secrets() []string             { return nil }

// header sends one fixed header.
type header struct {
	name, value string
	hidden      []string
}

func (h header) authorize(r *http.Request) error {
	r.Header.Set(h.name, h.value)
	return nil
}

func (h header) secrets() []string { return h.hidden }

// unmarshal reads the words after "auth".
func (a *Auth) unmarshal(d *caddyfile.Dispenser) error {
	usage := map[string]string{
		"bearer": "auth bearer <token>",
		"header": "auth header <name> <value>",
		"cdp":    "auth cdp <key_id> <key_secret>",
	}
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.Err("auth wants a kind: bearer, header or cdp")
	}
	a.Type = words[0]
	form, ok := usage[a.Type]
	if !ok {
		// Not quoted: a token may have slipped into the place of the kind.
		return d.Err("unknown kind of auth; known are bearer, header and cdp")
	}
	if len(words) != len(strings.Fields(form))-1 {
		return d.Errf("auth %s has %d words too many or too few (an unset {$VARIABLE} vanishes); write `%s`",
			a.Type, abs(len(words)-len(strings.Fields(form))+1), form)
	}
	switch a.Type {
	case "bearer":
		a.Token = words[1]
	case "header":
		a.Name, a.Value = words[1], words[2]
	case "cdp":
		a.KeyID, a.KeySecret = words[1], words[2]
	}
	return nil
}

func abs(n int) int { return max(n, -n) }

// resolve reads the secrets and makes the authorizer.
func (a *Auth) resolve() (authorizer, error) {
	if err := a.onlyOwnFields(); err != nil {
		return nil, err
	}
	switch a.Type {
	case "bearer":
		token, err := secret("token", a.Token)
		if err != nil {
			return nil, err
		}
		return headerAuth("Authorization", "Bearer "+token)
	case "header":
		if err := checkHeaderName(a.Name); err != nil {
			return nil, err
		}
		value, err := secret("value", a.Value)
		if err != nil {
			return nil, err
		}
		return headerAuth(a.Name, value)
	case "cdp":
		id, err := secret("key_id", a.KeyID)
		if err != nil {
			return nil, err
		}
		key, err := secret("key_secret", a.KeySecret)
		if err != nil {
			return nil, err
		}
		return newCDP(id, key)
	case "":
		return nil, errors.New("type is missing; it is bearer, header or cdp")
	default:
		return nil, errors.New("unknown type; known are bearer, header and cdp")
	}
}

// onlyOwnFields refuses a field of another type: who writes it believes that it
// does something.
func (a *Auth) onlyOwnFields() error {
	fields := []struct{ of, name, value string }{
		{"bearer", "token", a.Token},
		{"header", "name", a.Name},
		{"header", "value", a.Value},
		{"cdp", "key_id", a.KeyID},
		{"cdp", "key_secret", a.KeySecret},
	}
	for _, f := range fields {
		if f.of != a.Type && f.value != "" && a.Type != "" {
			return fmt.Errorf("%s belongs to type %s; remove it", f.name, f.of)
		}
	}
	return nil
}

// inTheClear reports whether a secret stands in the config itself.
func (a *Auth) inTheClear() bool {
	for _, s := range []string{a.Token, a.Value, a.KeySecret} {
		if s != "" && !placeholder.MatchString(s) {
			return true
		}
	}
	return false
}

// headerAuth sends value in the header name. Each word of it is taken for a
// secret, since only the operator knows which one is.
func headerAuth(name, value string) (authorizer, error) {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' {
			return nil, errors.New("a character in the secret cannot be sent in a header; is it the right file?")
		}
	}
	return header{name: name, value: value, hidden: strings.Fields(value)}, nil
}

var (
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

// ownHeaders are those that we or net/http set, and those that would change how
// often a request is sent.
var ownHeaders = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host",
	"Idempotency-Key", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Idempotency-Key",
}

func checkHeaderName(name string) error {
	if !headerName.MatchString(name) {
		return errors.New("name is missing or is no header name; write it like X-Api-Key")
	}
	if slices.Contains(ownHeaders, textproto.CanonicalMIMEHeaderKey(name)) {
		return fmt.Errorf("the header %s is not for credentials", name)
	}
	return nil
}

// secret resolves the placeholders of a secret. Errors never repeat the text:
// it may be the secret itself.
func secret(field, raw string) (string, error) {
	if raw == "" {
		return "", fmt.Errorf("%s is missing", field)
	}
	for _, p := range placeholder.FindAllString(raw, -1) {
		if !strings.HasPrefix(p, "{env.") && !strings.HasPrefix(p, "{file.") {
			return "", fmt.Errorf("%s holds a placeholder other than {env.*} and {file.*}, which are the only ones known when the config loads", field)
		}
	}
	value, err := caddy.NewReplacer().ReplaceOrErr(raw, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: a placeholder is unset, empty or unreadable; set the environment variable or write the file", field)
	}
	if value = strings.TrimSpace(value); value == "" {
		return "", fmt.Errorf("%s is empty", field)
	}
	return value, nil
}
