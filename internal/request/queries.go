package request

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// queriesKey is where a request keeps what was read of its queries, since many
// lines may ask.
const queriesKey = "paywall.queries"

// Queries are the readings of the query of a request.
type Queries struct {
	Read   []pricing.Query
	Looked int // work of matchers so far, which they bound
}

// forgetQueries is called before a request is decided about: since the last time
// somebody may have rewritten it.
func forgetQueries(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), queriesKey) != nil {
		caddyhttp.SetVar(r.Context(), queriesKey, nil)
	}
}

// QueriesOf reads the queries that a request has: as it was rewritten and as it
// was received, and those of what some upstreams read instead of the request line.
func QueriesOf(r *http.Request) *Queries {
	if kept, ok := caddyhttp.GetVar(r.Context(), queriesKey).(*Queries); ok {
		return kept
	}
	raw := make([]string, 0, 4)
	add := func(query string) {
		if !slices.Contains(raw, query) {
			raw = append(raw, query)
		}
		if mayBePath(query) {
			if _, rest, ok := strings.Cut(strings.TrimLeft(query, "?"), "?"); ok && !slices.Contains(raw, rest) {
				raw = append(raw, rest)
			}
		}
	}
	add(r.URL.RawQuery)
	add(originalURL(r).RawQuery)
	original, current := pathsOf(r)
	for _, path := range []string{original, current} {
		if query, ok := queryInPath(path); ok {
			add(query)
		}
		for _, pairs := range pairsInPath(path) {
			add(pairs)
			for _, u := range []*url.URL{r.URL, originalURL(r)} {
				if u.RawQuery != "" {
					add(pairs + "&" + u.RawQuery)
				}
			}
		}
	}
	for name, values := range r.Header {
		if name == "" || name[0] != 'X' && name[0] != 'x' || !headers.Is(name, pathHeaders) {
			continue
		}
		for _, value := range values {
			_, query, _ := strings.Cut(value, "?")
			add(strings.TrimSpace(query))
		}
	}
	asked := &Queries{Read: make([]pricing.Query, len(raw))}
	unknown := hasOtherCharset(r.Header)
	for i, query := range raw {
		if unknown && query != "" {
			asked.Read[i] = pricing.UnknownQuery()
			continue
		}
		asked.Read[i] = pricing.ReadQuery(query)
	}
	if r.Context().Value(caddyhttp.VarsCtxKey) != nil {
		caddyhttp.SetVar(r.Context(), queriesKey, asked)
	}
	return asked
}

// queryInPath is what an upstream takes for a query that decodes a path before it
// looks for the question mark.
func queryInPath(path string) (query string, ok bool) {
	for i := strings.IndexByte(path, '%'); i >= 0; {
		rest := path[i+1:]
		for strings.HasPrefix(rest, "25") {
			rest = rest[2:]
		}
		if len(rest) >= 2 && rest[0] == '3' && rest[1]|0x20 == 'f' {
			return rest[2:], true
		}
		next := strings.IndexByte(path[i+1:], '%')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return "", false
}

// pairsInPath are what front controllers find in the query when they are told the path there:
// Apache with `RewriteRule ^(.*)$ index.php?url=$1 [QSA]` and nginx with `/index.php?q=$uri`
// decode it before, and an ampersand in it begins another pair. The query follows these.
func pairsInPath(path string) (pairs []string) {
	for range maxPathDecodes + 1 {
		if _, rest, ok := strings.Cut(path, "&"); ok && !slices.Contains(pairs, rest) {
			pairs = append(pairs, rest)
		}
		if strings.IndexByte(path, '%') < 0 {
			break
		}
		path = decodeEscapes(path)
	}
	return pairs
}

// maxPathDecodes is how often a path may be decoded before it is put into a query.
const maxPathDecodes = 2

// decodeEscapes decodes the escapes of a path; what is none stays.
func decodeEscapes(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		if c := path[i]; c == '%' && i+2 < len(path) {
			if hi, lo := unhex(path[i+1]), unhex(path[i+2]); hi < 16 && lo < 16 {
				b.WriteByte(hi<<4 | lo)
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// hasOtherCharset says whether the Content-Type of a request names a charset in which ASCII
// could be something else: Django and Tomcat read the query in it, where `+AHA-` is p in
// UTF-7, and in cp037 nothing is what it seems.
func hasOtherCharset(header http.Header) bool {
	for name, values := range header {
		if !headers.Is(name, contentType) {
			continue
		}
		for _, value := range values {
			rest := strings.ToLower(value)
			for {
				_, after, ok := strings.Cut(rest, "charset")
				if !ok {
					break
				}
				rest = after
				charset, _, _ := strings.Cut(after, ";")
				charset, ok = strings.CutPrefix(strings.TrimSpace(charset), "=")
				if charset = strings.Trim(charset, " \t\"'"); !ok || charset != "" && !slices.Contains(asciiCharsets, strings.ReplaceAll(charset, "_", "-")) {
					return true
				}
			}
		}
	}
	return false
}

var (
	contentType = []string{"Content-Type"}
	// asciiCharsets are those of the web in which ASCII is what it is.
	asciiCharsets = []string{"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "iso8859-1", "latin-1", "latin1", "windows-1252", "cp1252"}
)
