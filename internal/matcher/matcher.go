// Package matcher checks and loads the matchers of price lines: what a line says better
// itself is refused, a query is judged in every way in which a server could read it, and
// what a matcher looks at is told, for caches.
package matcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// Load compiles a line's matcher. Every matcher error refuses: a line
// that cannot be judged must not be skipped, for behind it may be a free one.
// Surely is nil where the matcher reads a request in one way only.
func Load(ctx caddy.Context, line any, raw caddyhttp.RawMatcherSets) (matcher, surely matchFunc, err error) {
	if len(raw) == 0 {
		return nil, nil, nil
	}
	for _, set := range raw {
		if err := Check(set); err != nil {
			return nil, nil, fmt.Errorf("its matcher contains %w", err)
		}
	}
	loaded, err := ctx.LoadModule(line, "MatcherSetsRaw")
	if err != nil {
		return nil, nil, fmt.Errorf("loading its matcher: %w", err)
	}
	var sets caddyhttp.MatcherSets
	if err := sets.FromInterface(loaded); err != nil {
		return nil, nil, fmt.Errorf("loading its matcher: %w", err)
	}
	if !slices.ContainsFunc(sets, readsQuery) {
		return sets.AnyMatchWithError, nil, nil
	}
	matcher, surely = everyReading(sets)
	return matcher, surely, nil
}

// Check refuses what a line says better itself.
func Check(set caddy.ModuleMap) error {
	if name := pathMatcherIn(set); name != "" {
		return fmt.Errorf("%q, which knows one spelling of a path only; put the paths into the line itself", name)
	}
	if name := MethodMatcherIn(set); name != "" {
		return fmt.Errorf("%q, which does not see the method that an upstream may take from a header or a query (X-HTTP-Method-Override, _method); put the methods into the line itself, before the paths", name)
	}
	if readsHostHeader(set) {
		return errors.New("the Host header with its port, which a client may write in more ways than one; use a `host` matcher")
	}
	return nil
}

// CheckClient refuses in a matcher for clients what it does not see in every way in which an
// upstream may read it, and no line beside it says.
func CheckClient(set caddy.ModuleMap) error {
	if name := pathMatcherIn(set); name != "" {
		return fmt.Errorf("%q; who is exempt is exempt everywhere: for paths write `free @matcher <path>...`", name)
	}
	if name := MethodMatcherIn(set); name != "" {
		return fmt.Errorf("%q, which does not see the method that an upstream may take from a header or a query; write `free <METHOD> @matcher <path>...`", name)
	}
	if readsHostHeader(set) || Host(caddyhttp.RawMatcherSets{set}).Looks() {
		return errors.New("the host, which an upstream may take from another header; give that host a site of its own")
	}
	return nil
}

// MethodMatcherIn finds in a set, however deep, what looks at the method.
func MethodMatcherIn(set caddy.ModuleMap) string {
	if _, ok := set["method"]; ok {
		return "method"
	}
	for name, raw := range set {
		if found := methodPlaceholder.Find(raw); found != nil {
			return name + " with the method"
		}
		switch name {
		case "not":
			var nested caddyhttp.RawMatcherSets
			if json.Unmarshal(raw, &nested) != nil {
				continue // loading it will fail
			}
			for _, set := range nested {
				if found := MethodMatcherIn(set); found != "" {
					return "not " + found
				}
			}
		case "expression":
			if methodFunction.Match(raw) {
				return "expression method"
			}
		}
	}
	return ""
}

var (
	methodPlaceholder = regexp.MustCompile(`http\.request\.(orig_)?method\b|\{(orig_)?method\}`)
	methodFunction    = regexp.MustCompile(`\bmethod\s*\(`)
)

// pathMatcherIn finds in a set, however deep, what looks at the path.
func pathMatcherIn(set caddy.ModuleMap) string {
	for _, name := range []string{"path", "path_regexp", "url_pattern", "file"} {
		if _, ok := set[name]; ok {
			return name
		}
	}
	for name, raw := range set {
		text := string(raw)
		if found := pathPlaceholderIn(text); found != "" {
			return name + " with {" + found + "}"
		}
		switch name {
		case "not":
			if nestedPath.MatchString(text) {
				return "not path"
			}
		case "expression":
			if pathFunction.MatchString(text) {
				return "expression path"
			}
		}
	}
	return ""
}

var (
	nestedPath   = regexp.MustCompile(`"(path|path_regexp|url_pattern|file)"\s*:`)
	pathFunction = regexp.MustCompile(`\b(path|path_regexp|url_pattern|file)\s*\(`)
	// What placeholders of the path begin with; those of the query are no path.
	pathPlaceholder = regexp.MustCompile(`http\.request\.(orig_)?uri[\w.]*|http\.matchers\.file[\w.]*|\{(path|uri|file|dir|url_pattern)\b[\w.]*|http\.url_pattern[\w.]*|\{url_pattern[\w.]*`)
	queryOnly       = regexp.MustCompile(`^http\.request\.(orig_)?uri\.query`)
)

func pathPlaceholderIn(text string) string {
	for _, found := range pathPlaceholder.FindAllString(text, -1) {
		if !queryOnly.MatchString(found) {
			return strings.TrimPrefix(found, "{")
		}
	}
	return ""
}

// Raw is a line's matcher as the config has it, or nil.
func Raw(sets caddyhttp.RawMatcherSets) json.RawMessage {
	if len(sets) == 0 {
		return nil
	}
	raw, err := json.Marshal(sets)
	if err != nil {
		return nil // loading it will fail
	}
	return raw
}

// Headers names the request headers that a matcher set looks at, as far as its
// config says so.
func Headers(set caddy.ModuleMap) (names []string) {
	add := func(name string) {
		if name = textproto.CanonicalMIMEHeaderKey(strings.TrimPrefix(name, "!")); httpguts.ValidHeaderFieldName(name) && name != "Host" {
			names = append(names, name)
		}
	}
	for module, raw := range set {
		if module == "crawler" || clientPlaceholder.Match(raw) {
			names = append(names, "User-Agent", "Signature-Agent", "Signature-Input", "Signature")
		}
		switch module {
		case "header", "header_regexp":
			var fields map[string]json.RawMessage
			if json.Unmarshal(raw, &fields) == nil {
				for name := range fields {
					add(name)
				}
			}
		case "not":
			var nested caddyhttp.RawMatcherSets
			if json.Unmarshal(raw, &nested) == nil {
				for _, set := range nested {
					names = append(names, Headers(set)...)
				}
			}
		}
		var text any
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		for _, s := range textsIn(text) {
			for _, m := range headerPlaceholder.FindAllStringSubmatch(s, -1) {
				add(m[1])
			}
			if cookiePlaceholder.MatchString(s) {
				add("Cookie")
			}
			if module == "expression" {
				for _, call := range headerFunction.FindAllString(s, -1) {
					for _, m := range headerKey.FindAllStringSubmatch(call, -1) {
						add(m[1])
					}
				}
				for _, call := range headerRegexp.FindAllString(s, -1) {
					for _, m := range quotedWord.FindAllStringSubmatch(call, -1) {
						add(m[1])
					}
				}
			}
		}
	}
	return names
}

// LeavesCrawlersOut says whether a set is for those who are no crawlers, as anybody can
// say; or for who has a placeholder of ours, which it might be.
func LeavesCrawlersOut(set caddy.ModuleMap) bool {
	for module, raw := range set {
		if clientPlaceholder.Match(raw) || module == "not" && nestedCrawler.Match(raw) {
			return true
		}
	}
	return false
}

var (
	clientPlaceholder = regexp.MustCompile(`http\.paywall\.client`)
	nestedCrawler     = regexp.MustCompile(`"crawler"\s*:`)
	headerPlaceholder = regexp.MustCompile(`(?:http\.request\.header|\{header)\.([\w-]+)`)
	cookiePlaceholder = regexp.MustCompile(`http\.request\.cookie\.|\{cookie\.`)
	headerFunction    = regexp.MustCompile(`\bheader\s*\([^)]*`)
	headerKey         = regexp.MustCompile(`['"]!?([\w-]+)['"]\s*:`)
	headerRegexp      = regexp.MustCompile(`\bheader_regexp\s*\([^)]*`)
	quotedWord        = regexp.MustCompile(`['"]([\w-]+)['"]`) // a word too many varies too much, which harms nobody
)

// textsIn are all texts of a config.
func textsIn(config any) (texts []string) {
	switch v := config.(type) {
	case string:
		return []string{v}
	case []any:
		for i := range v {
			texts = append(texts, textsIn(v[i])...)
		}
	case map[string]any:
		for name := range v {
			texts = append(append(texts, name), textsIn(v[name])...)
		}
	}
	return texts
}

// ReadingQueryOnce names the matchers of a set that see one reading of the query only.
func ReadingQueryOnce(set caddy.ModuleMap) (names []string) {
	for name, raw := range set {
		if name != "query" && (queryPlaceholder.Match(raw) || name == "expression" && queryFunction.Match(raw)) {
			names = append(names, name)
		}
	}
	return names
}

var (
	queryPlaceholder = regexp.MustCompile(`http\.request\.(orig_)?uri\.(prefixed_)?query|\{(prefixed_)?query\b|\{orig_uri\.query`)
	queryFunction    = regexp.MustCompile(`\bquery\s*\(`)
)
