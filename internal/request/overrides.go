// Package request reads what a request says beside its line: other paths and methods in
// headers and queries that some upstreams obey, every reading of its query, and where it
// comes from. What is read is priced; nothing is removed.
package request

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// pathHeaders are headers that some upstreams read instead of the path: IIS URL
// Rewrite, Symfony and Zend the first two, applications made for nginx the
// others.
var pathHeaders = []string{"X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Forwarded-Uri"}

// methodHeaders are headers that some upstreams read instead of the method:
// Express, Rack, Laravel, Spring, Google's and Microsoft's services.
var methodHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// prefixHeaders are headers in which some upstreams are told the beginning of the path
// at which they stand, and which they then leave out: applications in Python behind the
// usual snippet, and what follows ProxyFix, Spring or ASP.NET. The last two are those of
// Plack's ReverseProxyPath, and of Daphne, the server of Django Channels, which takes its
// own of any client, in escapes.
var prefixHeaders = []string{"X-Script-Name", "X-Forwarded-Prefix", "X-Forwarded-Script-Name", "X-Traversal-Path", "Daphne-Root-Path"}

// cutHeaders are the same to servers that leave out what stands before the prefix too:
// gunicorn, which takes SCRIPT_NAME of any client, or of one on its own machine. Caddy
// drops such names, but for those that the config expects.
var cutHeaders = []string{"Script-Name"}

// Overrides are the other paths and methods that a request names, each once and
// sorted.
type Overrides struct {
	paths, methods []string
	hosts          []string // only where a line looks at the host: see ReadHosts
	looked         int      // values and words of values
	many           bool     // more than we look at
	odd            bool     // something is no part of a URL that it is said to be
}

// Bounds of what a request may name. An upstream obeys one of each.
const (
	// maxOverrides is how many other paths or methods there may be. Each is
	// looked up in every reading.
	maxOverrides = 8
	// maxPrefixes is how many different beginnings of the path there may be. Each is
	// looked for in it.
	maxPrefixes = 8
	// maxOverrideWords is how often they may be said, each as often as somebody
	// likes.
	maxOverrideWords = 512
	// maxTarget is how long a path may be, in bytes.
	maxTarget = 10 << 10
	// maxRoute is how long a path in a query may be, in bytes, that is decided about as a
	// whole. Nobody's is longer but that of who makes it so; and a query may begin with a
	// slash that is no path, but a picture in base64.
	maxRoute = 2 << 10
	// maxQuery is how long a query may be. It is only looked through for
	// `_method`; what matchers look at has bounds of its own.
	maxQuery = 64 << 10
)

// ReadOverrides finds them. Most requests have none, and cost one look at the
// names of their headers. A path that is too long is not looked at any further.
func ReadOverrides(r *http.Request) (o Overrides) {
	original := originalURL(r)
	if tooLong(r.URL) || tooLong(original) {
		o.many = true
		return o
	}
	var begins []prefix
	for name, values := range r.Header {
		if name == "" || !firstBytes[name[0]] {
			continue
		}
		switch {
		case isAuthority(name):
			o.odd = o.odd || slices.ContainsFunc(values, func(value string) bool { return !saysAuthority(name, value) })
		case headers.Is(name, pathHeaders):
			for _, value := range values {
				if !o.more() || len(value) > maxTarget {
					o.many = true
					return o
				}
				path := pathOf(value)
				o.paths = o.with(o.paths, path)
				if path, query, ok := strings.Cut(path, "?"); ok {
					o.addQueryPath(path, query)
				}
			}
		case headers.Is(name, prefixHeaders):
			begins = o.prefixes(begins, values, false)
		case headers.Is(name, cutHeaders):
			begins = o.prefixes(begins, values, true)
		case headers.Is(name, methodHeaders):
			for _, value := range values {
				o.addMethods(value)
			}
		}
	}
	if o.odd {
		return o
	}
	if len(begins) > 0 && !o.many {
		o.addWithout(r, begins)
	}
	o.addQuery(r.URL.RawQuery)
	o.addQueryPaths(r.URL)
	if original != r.URL {
		if original.RawQuery != r.URL.RawQuery {
			o.addQuery(original.RawQuery)
		}
		o.addQueryPaths(original)
	}
	slices.Sort(o.paths) // headers come in no order
	slices.Sort(o.methods)
	return o
}

// firstBytes are those that the names of the headers begin with.
var firstBytes = [256]bool{'x': true, 'X': true, 's': true, 'S': true, 'd': true, 'D': true, 'f': true, 'F': true}

// tooLong says whether a path is longer than we look at.
func tooLong(u *url.URL) bool { return max(len(u.Path), len(u.RawPath)) > maxTarget }

// prefix is a beginning of the path that a header names, and whether what stands before it
// is left out too.
type prefix struct {
	text     string
	anywhere bool
}

// prefixes adds the prefixes of a header's values to those that are there, each once.
func (o *Overrides) prefixes(list []prefix, values []string, anywhere bool) []prefix {
	for _, value := range values {
		if !o.more() {
			return list
		}
		value = strings.TrimSpace(value)
		for _, text := range [...]string{value, unescapePath(value)} {
			p := prefix{text, anywhere}
			if text == "" || slices.Contains(list, p) {
				continue
			}
			if len(list) == maxPrefixes {
				o.many = true
				return list
			}
			list = append(list, p)
		}
	}
	return list
}

// addWithout adds the paths without the prefixes.
func (o *Overrides) addWithout(r *http.Request, list []prefix) {
	original, current := pathsOf(r)
	paths := []string{original, current, r.URL.Path, originalURL(r).Path}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		for _, p := range list {
			rest, ok := strings.CutPrefix(path, strings.TrimRight(p.text, "/"))
			if p.anywhere {
				_, rest, ok = strings.Cut(path, p.text)
			}
			if ok && rest != path {
				o.paths = o.with(o.paths, "/"+strings.TrimLeft(rest, "/"))
			}
		}
	}
}

// more counts what is looked at, and says whether to go on.
func (o *Overrides) more() bool {
	o.looked++
	o.many = o.many || o.looked > maxOverrideWords
	return !o.many
}

// with adds one that is not there yet.
func (o *Overrides) with(list []string, one string) []string {
	switch {
	case slices.Contains(list, one):
		return list
	case len(list) == maxOverrides:
		o.many = true
		return list
	default:
		return append(list, one)
	}
}

// Act says whether one of the methods has effects.
func (o *Overrides) Act() bool {
	return slices.ContainsFunc(o.methods, func(m string) bool { return !Safe(m) })
}

// addMethods adds the methods of a header's value.
func (o *Overrides) addMethods(value string) {
	for method := range strings.SplitSeq(value, ",") {
		if !o.more() {
			return
		}
		if method = strings.ToUpper(strings.TrimSpace(method)); method != "" {
			o.methods = o.with(o.methods, method)
		}
	}
}

// addQuery adds what the query says of the method: `_method`, in the spellings
// that PHP takes for it too. PHP ends a pair at & only, so that a name may have a
// semicolon in it: `_method%00;=PUT`.
func (o *Overrides) addQuery(query string) {
	if len(query) > maxQuery {
		o.many = true
		return
	}
	for start := 0; start < len(query); {
		end := start + endOfPair(query[start:])
		switch query[start] {
		case '_', '.', '+', '%', ' ', '?':
			pair := query[start:end]
			if (start == 0 || query[start-1] == '&') && strings.IndexByte(pair, '=') < 0 {
				pair, _, _ = strings.Cut(query[start:], "&")
			}
			if value, ok := methodIn(pair); ok {
				o.addMethods(unescape(value))
			}
		}
		start = end + 1
	}
}

// addQueryPaths adds the paths that a URL has in its query, or behind a question mark
// that is escaped.
func (o *Overrides) addQueryPaths(u *url.URL) {
	if u.RawQuery != "" && mayBePath(u.RawQuery) {
		o.addQueryPath(wirePath(u), u.RawQuery)
	}
	if strings.IndexByte(u.Path, '?') < 0 && strings.IndexByte(u.Path, '%') < 0 && strings.IndexByte(u.Path, '&') < 0 {
		return // as it is with most
	}
	path := wirePath(u)
	for _, pairs := range pairsInPath(path) {
		o.addQuery(pairs)
	}
	if query, ok := queryInPath(path); ok {
		o.addQueryPath(path[:strings.LastIndexByte(path[:len(path)-len(query)], '%')], query)
	}
}

// addQueryPath adds the path that a query begins with: CodeIgniter and others that
// have one program for all take `/index.php?/articles/1` for `/articles/1`, and below
// a folder for what lies in it. It ends with a second question mark, behind which is
// the query then, and to some with the first pair.
func (o *Overrides) addQueryPath(folder, query string) {
	if !mayBePath(query) {
		return
	}
	query = strings.TrimLeft(query, "?")
	if query[0] == '%' {
		query = query[len("%2f"):]
	}
	route, rest, _ := strings.Cut(strings.TrimLeft(query, "/"), "?")
	o.addQuery(rest)
	folder = strings.TrimRight(folder, "/") + "/"
	first, _, _ := strings.Cut(route, "&")
	for _, route := range [...]string{route, first} {
		short := shorten(route)
		if len(folder)+len(short) > maxTarget || len(route) > maxTarget && hasDots(route) {
			o.many = true
			return
		}
		o.paths = o.with(o.paths, "/"+short)
		o.paths = o.with(o.paths, folder+short)
		for _, plain := range withoutDots(route) {
			o.paths = o.with(o.paths, "/"+shorten(plain))
		}
	}
}

// withoutDots are a route without the names `.` and `..`, as upstreams leave them out:
// CodeIgniter 3 takes them away, and others go up for them. That comes before a long route
// is shortened, since it may consist of them.
func withoutDots(route string) []string {
	if !hasDots(route) {
		return nil
	}
	route = unescapedDots.Replace(route)
	names := slices.DeleteFunc(strings.Split(route, "/"), func(name string) bool { return name == "." || name == ".." })
	return []string{strings.Join(names, "/"), strings.TrimPrefix(path.Clean("/"+route), "/")}
}

// hasDots says whether a route may have such names.
func hasDots(route string) bool {
	return strings.HasPrefix(route, ".") || strings.Contains(route, "/.") ||
		strings.Contains(route, "%2e") || strings.Contains(route, "%2E") || strings.Contains(route, "%2f.") || strings.Contains(route, "%2F.")
}

// unescapedDots makes dots and slashes of those that are escaped.
var unescapedDots = strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/")

// shorten leaves out slashes that follow others, and what is too much in the middle of a
// route: a path that is so long has its price by how it begins or ends.
func shorten(route string) string {
	if len(route) <= maxRoute {
		return route
	}
	short := make([]byte, 0, len(route))
	for i := range len(route) {
		if route[i] != '/' || i > 0 && route[i-1] != '/' {
			short = append(short, route[i])
		}
	}
	const half = maxRoute / 2
	if more := len(short) - maxRoute; more > 0 {
		short = append(short[:half], short[half+more:]...)
	}
	return string(short)
}

// mayBePath says whether a query begins as a path does.
func mayBePath(query string) bool {
	query = strings.TrimLeft(query, "?") // some take a second `?` for the first
	return strings.HasPrefix(query, "/") || len(query) > 2 && query[0] == '%' && query[1] == '2' && query[2]|0x20 == 'f'
}

// endOfPair is where the first pair of a query ends.
func endOfPair(query string) int {
	for i := range len(query) {
		if query[i] == '&' || query[i] == ';' {
			return i
		}
	}
	return len(query)
}

// methodIn is the value of a pair of a query whose name says that it is the
// method. It is asked of every pair, and copies none.
func methodIn(pair string) (value string, ok bool) {
	const want = "_method"
	at := 0
	for i := 0; i < len(pair); i++ {
		c := pair[i]
		switch {
		case c == '=':
			return pair[i+1:], at == len(want)
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(pair):
			c = unhex(pair[i+1])<<4 | unhex(pair[i+2])
			i += 2
		}
		switch {
		case at == 0 && (c == ' ' || c == '?'): // some take a second `?` for the first
		case at == len(want) && (c == '[' || c == 0):
			// `_method[]` is a list to many, and PHP reads names to their first NUL.
			_, value, _ := strings.Cut(pair[i:], "=")
			return value, true
		case at == 0 && (c == '_' || c == '.'), at > 0 && at < len(want) && c|0x20 == want[at]:
			at++
		default:
			return "", false
		}
	}
	return "", at == len(want)
}

// unhex is the value of a hexadecimal digit. What is none makes no letter of a
// name that we look for.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	default:
		return 0xff
	}
}

// unescape decodes a part of a query, which stays as it is if that is broken.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// unescapePath decodes a path, which stays as it is if that is broken.
func unescapePath(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// pathOf is the path of a header's value, which may be a whole URL.
func pathOf(value string) string {
	value = strings.TrimSpace(value)
	if scheme, rest, ok := strings.Cut(value, "://"); ok && !strings.ContainsAny(scheme, "/?") {
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	return value
}

// IsOverride says whether a header names another path, method or host. As a trailer it comes
// when the price is decided, and servers that take trailers for headers obey it.
func IsOverride(name string) bool {
	return isAuthority(name) || headers.Is(name, pathHeaders) || headers.Is(name, methodHeaders) || headers.Is(name, prefixHeaders) || headers.Is(name, cutHeaders)
}

// Decide asks the price list about the path that the upstream will see, as it
// was received and as it was rewritten, and about what else the request names. Of
// several hosts the dearer one counts.
func Decide(list *pricing.List, r *http.Request, method string, o Overrides) (pricing.Decision, error) {
	decision, err := decide(list, r, method, o)
	for _, host := range o.hosts {
		if err != nil {
			break
		}
		other := *r
		other.Host = host
		var there pricing.Decision
		if there, err = decide(list, &other, method, o); err == nil {
			decision = list.JoinDearer(decision, there)
		}
	}
	if decision.Kind == pricing.Priced && !httpguts.ValidHeaderFieldName(method) {
		// Over HTTP/2 a method may be anything. No transport sends one that is no token.
		return pricing.Decision{Kind: pricing.Ambiguous, Line: -1}, err
	}
	return decision, err
}

func decide(list *pricing.List, r *http.Request, method string, o Overrides) (pricing.Decision, error) {
	if r.URL.Opaque != "" || tooLong(r.URL) || o.many || o.odd || isOddHost(r) {
		// `x:http://a/b` is no path to net/http, and `http://a/b` to the upstream.
		return pricing.Decision{Kind: pricing.Ambiguous, Line: -1}, nil
	}
	forgetQueries(r)
	original, current := pathsOf(r)
	lower := hasLower(method)
	if len(o.paths)+len(o.methods) == 0 && original == current && !lower {
		return list.Decide(r, method, current)
	}
	methods := append([]string{method, strings.ToUpper(method)}, o.methods...)
	if !lower {
		methods = methods[1:]
	}
	each, err := list.DecideEach(r, methods, append([]string{original, current}, o.paths...)...)
	if err != nil {
		return pricing.Decision{Line: -1}, err
	}
	decision := each[0]
	others := each[1:]
	if lower && decision.Kind != pricing.Free && decision.Kind != pricing.Priced {
		// `get` is another method than GET, but not to every upstream.
		others = others[1:]
	}
	for _, other := range others {
		decision = pricing.Join(decision, other)
	}
	return decision, nil
}

func hasLower(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return 'a' <= c && c <= 'z' })
}
