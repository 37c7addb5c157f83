package botauth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Bounds of what a request may say. What is beyond them is not verified.
const (
	maxInput      = 4 << 10 // bytes of Signature-Input
	maxSignature  = 2 << 10 // bytes of Signature
	maxAgent      = 1 << 10 // bytes of Signature-Agent
	maxSignatures = 4
	maxCovered    = 16
	maxMembers    = 4 << 10 // bytes of a dictionary of which a member is covered
	maxNonce      = 256

	tag = "web-bot-auth"
	// longest is how long a signature may be good. The draft recommends no more than a day.
	longest = 24 * time.Hour
	// skew is how far the signer's clock may be from ours.
	skew = 30 * time.Second
)

var (
	headerAgent     = http.CanonicalHeaderKey("Signature-Agent")
	headerInput     = http.CanonicalHeaderKey("Signature-Input")
	headerSignature = http.CanonicalHeaderKey("Signature")
)

// IsSigned says whether a request carries what a signature needs. It costs nothing.
func IsSigned(header http.Header) bool {
	return len(header[headerInput]) > 0 && len(header[headerSignature]) > 0 && len(header[headerAgent]) > 0
}

// signature is one that a request carries, checked as far as that goes without its key.
type signature struct {
	domain  string // whose directory has the key
	keyID   string
	nonce   string
	expires time.Time
	bytes   []byte
	input   httpsfv.InnerList
}

// errUnsigned is for what carries no signature of the kind.
var errUnsigned = errors.New("not signed")

// signaturesOf reads what a request carries. Those with errors, and those that are not
// meant to say who asks, are left out.
func signaturesOf(m *Message, now time.Time, longest time.Duration) ([]signature, error) {
	if !IsSigned(m.Header) {
		return nil, errUnsigned
	}
	for name, limit := range map[string]int{headerInput: maxInput, headerSignature: maxSignature, headerAgent: maxAgent} {
		size := 0
		for _, value := range m.Header[name] {
			size += len(value) + 1
		}
		if size > limit {
			return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
		}
	}
	inputs, err := httpsfv.UnmarshalDictionary(m.Header[headerInput])
	if err != nil {
		return nil, fmt.Errorf("reading Signature-Input: %w", err)
	}
	values, err := httpsfv.UnmarshalDictionary(m.Header[headerSignature])
	if err != nil {
		return nil, fmt.Errorf("reading Signature: %w", err)
	}
	agents, err := agentsOf(m.Header)
	if err != nil {
		return nil, fmt.Errorf("reading Signature-Agent: %w", err)
	}
	labels := inputs.Names()
	if len(labels) > maxSignatures {
		return nil, fmt.Errorf("%d signatures", len(labels))
	}
	var found []signature
	var errs []error
	for _, label := range labels {
		s, err := readSignature(label, inputs, values, agents, now, longest)
		if err != nil {
			errs = append(errs, fmt.Errorf("signature %s: %w", label, err))
			continue
		}
		found = append(found, s)
	}
	if len(found) == 0 {
		return nil, errors.Join(append(errs, errUnsigned)...)
	}
	return found, nil
}

func readSignature(label string, inputs, values *httpsfv.Dictionary, agents agents, now time.Time, longest time.Duration) (s signature, err error) {
	member, _ := inputs.Get(label)
	input, ok := member.(httpsfv.InnerList)
	if !ok || len(input.Items) == 0 || len(input.Items) > maxCovered {
		return s, errors.New("covers nothing, or too much")
	}
	s.input = input
	if text(input.Params, "tag") != tag {
		return s, errors.New("for another purpose")
	}
	if alg, ok := input.Params.Get("alg"); ok && alg != "ed25519" {
		return s, fmt.Errorf("algorithm %v, not ed25519", alg)
	}
	value, _ := values.Get(label)
	item, _ := value.(httpsfv.Item)
	if s.bytes, _ = item.Value.([]byte); len(s.bytes) != ed25519.SignatureSize {
		return s, errors.New("not 64 bytes")
	}
	if s.keyID = text(input.Params, "keyid"); !isThumbprint(s.keyID) {
		return s, errors.New("keyid is not a thumbprint")
	}
	if s.nonce = text(input.Params, "nonce"); len(s.nonce) > maxNonce {
		return s, errors.New("a long nonce")
	}
	created, ok1 := seconds(input.Params, "created")
	expires, ok2 := seconds(input.Params, "expires")
	switch {
	case !ok1 || !ok2:
		return s, errors.New("without created and expires")
	case created.After(now.Add(skew)):
		return s, errors.New("from the future")
	case !expires.After(now.Add(-skew)):
		return s, errors.New("expired")
	case !expires.After(created) || expires.Sub(created) > longest:
		return s, errors.New("good for too long, or for no time")
	}
	s.expires = expires
	if s.domain, err = agents.coveredBy(label, input); err != nil {
		return s, err
	}
	if !covers(input, "@authority") && !covers(input, "@target-uri") {
		return s, errors.New("for any host")
	}
	return s, nil
}

// base is what has been signed (RFC 9421, section 2.5).
func (s *signature) base(m *Message) ([]byte, error) {
	var b strings.Builder
	seen := map[string]bool{}
	for _, item := range s.input.Items {
		identifier, err := httpsfv.Marshal(item)
		if err != nil {
			return nil, err
		}
		if seen[identifier] {
			return nil, fmt.Errorf("%s is covered twice", identifier)
		}
		seen[identifier] = true
		value, err := m.component(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", identifier, err)
		}
		if strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("%s has a line break", identifier)
		}
		b.WriteString(identifier + ": " + value + "\n")
	}
	params, err := httpsfv.Marshal(httpsfv.List{s.input})
	if err != nil {
		return nil, err
	}
	b.WriteString(`"@signature-params": ` + params)
	return []byte(b.String()), nil
}

func text(p *httpsfv.Params, name string) string {
	v, _ := p.Get(name)
	s, _ := v.(string)
	return s
}

func seconds(p *httpsfv.Params, name string) (time.Time, bool) {
	v, _ := p.Get(name)
	n, ok := v.(int64)
	return time.Unix(n, 0), ok && n > 0 && n < 1<<40
}

// isThumbprint says whether a text could be the SHA-256 thumbprint of a key.
func isThumbprint(s string) bool {
	if len(s) != 43 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// covers says whether a signature covers a component without parameters.
func covers(input httpsfv.InnerList, name string) bool {
	return slices.ContainsFunc(input.Items, func(item httpsfv.Item) bool {
		return item.Value == name && len(item.Params.Names()) == 0
	})
}

// agents are the domains that Signature-Agent names, by their keys; the older form has
// one, without a key.
type agents struct {
	bare   string
	byName map[string]string
}

// agentsOf reads Signature-Agent. Of a member of another type than `directory` nothing is
// known: nobody says that a path is its host's own.
func agentsOf(header http.Header) (agents, error) {
	values := header[headerAgent]
	if strings.HasPrefix(strings.TrimSpace(values[0]), `"`) {
		item, err := httpsfv.UnmarshalItem(values)
		if err != nil {
			return agents{}, err
		}
		domain, err := originOf(item.Value)
		return agents{bare: domain}, err
	}
	dictionary, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return agents{}, err
	}
	found := agents{byName: map[string]string{}}
	for _, name := range dictionary.Names() {
		member, _ := dictionary.Get(name)
		item, ok := member.(httpsfv.Item)
		if !ok {
			continue
		}
		if kind, ok := item.Params.Get("type"); ok && kind != httpsfv.Token("directory") {
			continue
		}
		if domain, err := originOf(item.Value); err == nil {
			found.byName[name] = domain
		}
	}
	return found, nil
}

// originOf is the domain of an https origin.
func originOf(value any) (string, error) {
	s, ok := value.(string)
	u, err := url.Parse(s)
	if !ok || err != nil || u.Scheme != "https" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return "", errors.New("not an https origin")
	}
	domain := strings.ToLower(u.Host)
	domain = strings.TrimSuffix(domain, ":443")
	if domain == "" || strings.ContainsAny(domain, ":[]%") {
		return "", errors.New("not the origin of a domain")
	}
	return domain, nil
}

// coveredBy is the domain that a signature covers: nobody else's name is put to it. The
// member has the signature's label, or it is the only one covered, since who passes a
// request on may change a label. Who covers the whole header, as the npm package
// web-bot-auth 0.1 does, covers each member.
func (a agents) coveredBy(label string, input httpsfv.InnerList) (string, error) {
	if a.bare != "" {
		if covers(input, "signature-agent") {
			return a.bare, nil
		}
		return "", errors.New("does not cover Signature-Agent")
	}
	var names []string
	for _, item := range input.Items {
		if item.Value != "signature-agent" {
			continue
		}
		if key := text(item.Params, "key"); key != "" && len(item.Params.Names()) == 1 {
			names = append(names, key)
		}
	}
	if len(names) == 0 && covers(input, "signature-agent") {
		names = slices.Collect(maps.Keys(a.byName))
	}
	switch {
	case slices.Contains(names, label):
		names = []string{label}
	case len(names) != 1:
		return "", errors.New("covers no member of Signature-Agent, or several and not its own")
	}
	domain := a.byName[names[0]]
	if domain == "" {
		return "", errors.New("names no directory")
	}
	return domain, nil
}

// Claims are the domains that a request says it is signed by. Nothing is proved by that.
func Claims(header http.Header) []string {
	if !IsSigned(header) || len(header[headerAgent]) > maxSignatures {
		return nil
	}
	size := 0
	for _, line := range header[headerAgent] {
		size += len(line)
	}
	if size > maxAgent {
		return nil
	}
	a, err := agentsOf(header)
	if err != nil {
		return nil
	}
	if a.bare != "" {
		return []string{a.bare}
	}
	var domains []string
	for _, domain := range a.byName {
		domains = append(domains, domain)
	}
	slices.Sort(domains)
	return domains
}
