package x402

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Template is a challenge without what depends on the request, encoded once.
// It is safe for concurrent use.
type Template struct {
	// head is the base64 of the version 2 object up to the URL. The object's
	// length is a multiple of three there, so that base64 can go on.
	head string
	// entries are the version 1 accepts entries up to the URL.
	entries []string
	words   Words
	said    string // words as members of the body, without one in front
}

// Words are what a challenge says in its body to people, and to programs that know no x402.
type Words struct {
	Price       string // such as `0.01 USDC on Base`
	Description string // of the goods
	Help        string // where to ask
}

// Say returns the challenge with words in its body.
func (t *Template) Say(w Words) *Template {
	said := []byte(`"price":`)
	said = appendString(said, w.Price)
	if w.Description != "" {
		said = appendString(append(said, `,"description":`...), w.Description)
	}
	if w.Help != "" {
		said = appendString(append(said, `,"help":`...), w.Help)
	}
	saying := *t
	saying.words, saying.said = w, string(said)
	return &saying
}

// Words are what the challenge says in its body.
func (t *Template) Words() Words { return t.words }

// Message says to people what an answer with a code is.
func (c Code) Message() string {
	if c == CodePaymentRequired {
		return "This has a price. A client that speaks x402 pays it by itself: what it needs is in the PAYMENT-REQUIRED header of this answer. See https://www.x402.org."
	}
	return "What came does not pay for this; the error says why. To buy it, sign a new payment of what the PAYMENT-REQUIRED header asks for."
}

// The constant parts of a version 2 challenge. What depends on the request, the
// URL and the error, comes last. White space between tokens is legal JSON, so
// the head is filled up with it after its first member.
const (
	headOpen  = `{"x402Version":2,`
	headURL   = `"url":`
	headError = `},"error":`
)

// v1Required is what version 1 servers say when a request has no payment.
const v1Required = "X-PAYMENT header is required"

// NewTemplate encodes a challenge for the requirements, which clients see as
// our order of preference. description and mimeType may be empty. extensions is
// the JSON object of what we declare, or nil.
//
// The error says which requirement could not be understood by a payer.
func NewTemplate(accepts []Requirement, description, mimeType string, extensions jsontext.Value) (*Template, error) {
	if len(accepts) == 0 {
		return nil, errors.New("challenge without requirements")
	}
	for i, r := range accepts {
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("requirement %d: %w", i, err)
		}
	}
	if extensions != nil && (!isObject(extensions) || !extensions.IsValid()) {
		return nil, errors.New("extensions are no JSON object")
	}
	list, err := json.Marshal(accepts)
	if err != nil {
		return nil, fmt.Errorf("requirements: %w", err)
	}
	about, err := json.Marshal(struct {
		Description string `json:"description"`
		MimeType    string `json:"mimeType"`
	}{description, mimeType})
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}

	rest := `"accepts":` + string(list)
	if extensions != nil {
		rest += `,"extensions":` + string(extensions)
	}
	rest += `,"resource":` + string(about[:len(about)-1]) + "," + headURL
	pad := strings.Repeat(" ", (3-(len(headOpen)+len(rest))%3)%3)
	t := &Template{head: base64.StdEncoding.EncodeToString([]byte(headOpen + pad + rest))}
	t.entries, err = v1Entries(accepts, description, mimeType)
	return t, err
}

// validate refuses what no client could pay.
func (r Requirement) validate() error {
	switch {
	case r.Scheme == "", r.Amount == "", r.Asset == "", r.PayTo == "":
		return errors.New("scheme, amount, asset and payTo must not be empty")
	case !strings.Contains(r.Network, ":"):
		return fmt.Errorf("network %q is not a CAIP-2 chain id", r.Network)
	case r.MaxTimeoutSeconds <= 0:
		return errors.New("maxTimeoutSeconds must be above zero")
	case len(r.Extra) > 0 && (!isObject(r.Extra) || !r.Extra.IsValid()):
		return errors.New("extra is not a JSON object")
	}
	return nil
}

// Header returns the PAYMENT-REQUIRED value: base64 of the version 2 object.
// url is what the request asked for; it is escaped here.
func (t *Template) Header(url string, code Code) string {
	var stack [1024]byte
	tail := appendString(stack[:0], url)
	tail = append(tail, headError...)
	tail = appendString(tail, string(code))
	tail = append(tail, '}')

	var b strings.Builder
	b.Grow(len(t.head) + base64.StdEncoding.EncodedLen(len(tail)))
	b.WriteString(t.head)
	var chunk [1024]byte
	for len(tail) > 0 {
		n := min(len(tail), len(chunk)/4*3)
		base64.StdEncoding.Encode(chunk[:], tail[:n])
		b.Write(chunk[:base64.StdEncoding.EncodedLen(n)])
		tail = tail[n:]
	}
	return b.String()
}

// AppendBody appends the body of a 402: the version 1 object, with the entries
// that a strict version 1 client can parse. Where there is none, and the challenge
// says nothing in words either, that is {}; with words it is an object without version
// and entries, in which such a client finds nothing to pay, as in {}. Version 2
// clients ignore it. The URL must be absolute, or version 1 clients refuse the
// whole object.
func (t *Template) AppendBody(dst []byte, url string, code Code) []byte {
	if len(t.entries) == 0 || !isAbsolute(url) {
		if t.said == "" {
			return append(dst, "{}"...)
		}
		dst = append(dst, `{"error":`...)
		dst = appendString(dst, string(code))
		return t.appendSaid(dst, code)
	}
	message := code
	if code == CodePaymentRequired {
		code = v1Required
	}
	var stack [1024]byte
	quoted := appendString(stack[:0], url)
	dst = append(dst, `{"x402Version":1,"error":`...)
	dst = appendString(dst, string(code))
	dst = append(dst, `,"accepts":[`...)
	for i, e := range t.entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, e...)
		dst = append(dst, quoted...)
		dst = append(dst, '}')
	}
	return t.appendSaid(append(dst, ']'), message)
}

// appendSaid ends a body with the words.
func (t *Template) appendSaid(dst []byte, code Code) []byte {
	if t.said != "" {
		dst = append(append(dst, ','), t.said...)
		dst = append(dst, `,"message":`...)
		dst = appendString(dst, code.Message())
	}
	return append(dst, '}')
}

// appendString appends s as JSON string. A request's URL may hold bytes that
// are no UTF-8; they become U+FFFD, since the URL here is for people and logs
// and a challenge must be JSON whatever was asked for.
func appendString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	dst, _ = jsontext.AppendQuote(dst, s) // fails for invalid UTF-8 only
	return dst
}

// isAbsolute reports whether url is an http URL with a plain host: what new
// URL() of every JavaScript engine takes.
func isAbsolute(url string) bool {
	rest, ok := strings.CutPrefix(url, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(url, "http://"); !ok {
			return false
		}
	}
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return host != "" && host[0] != ':'
}
