//go:build servers

package servers

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// mutator makes requests that a client would send who wants goods and does not
// pay. The same seed makes the same requests.
type mutator struct {
	*rand.Rand
	goods []good
}

func newMutator(seed, number uint64, goods []good) *mutator {
	return &mutator{rand.New(rand.NewPCG(seed, number)), goods}
}

// request is a good's request, changed here and there. Some changes keep it from
// any goods, so there are few in most of the requests.
func (m *mutator) request() request {
	g := m.goods[m.IntN(len(m.goods))]
	r := plain(g)
	path, query := g.path, g.query
	for range m.few(0.75) {
		path = m.path(path)
	}
	if query != "" || m.chance(0.15) {
		query = m.query(query)
	}
	if m.chance(0.2) {
		r.method = m.pick(methods)
	}
	if m.chance(0.5) {
		for range m.few(0.9) {
			m.header(&r)
		}
	}
	if m.chance(0.1) {
		m.body(&r)
	}
	if m.chance(0.08) {
		m.preflight(&r)
	}
	if m.chance(0.05) {
		m.elsewhere(&r, &path)
	}
	if m.chance(0.03) {
		r.version = m.pick([]string{"HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 "})
	}
	if m.chance(0.08) {
		r.host = m.pick(hosts)
	}
	r.target = path
	if query != "" {
		r.target += m.pick([]string{"?", "?", "?", "?", "?", "?", "?&", "??", "%3f", "/?", "#?"}) + query
	}
	if m.chance(0.08) {
		r.target = m.target(r.target)
	}
	return r
}

// path changes a path once.
func (m *mutator) path(p string) string {
	switch m.IntN(17) {
	case 0: // letter case
		return m.at(p, func(c string) string {
			if upper := strings.ToUpper(c); upper != c {
				return upper
			}
			return strings.ToLower(c)
		})
	case 1:
		return m.pick([]string{strings.ToUpper(p), strings.ToLower(p)})
	case 2, 3: // escapes
		return m.at(p, func(c string) string { return m.escape(c[0]) })
	case 4: // slashes
		return m.slash(p, m.pick([]string{"//", "///", "/./", "/.//", "/%2e/", "/x/../", "/x/%2e%2e/", "/x//../", "/free/../", "/..;/", "/x/..;/", "/.;/", "/%20/", "/;/", "/;x=1/"}))
	case 5:
		return m.slash(p, m.pick([]string{"%2f", "%2F", "%252f", "%25%32%66", `\`, "%5c", "%255c", `/\`, "/%2f", "%c0%af", "%e0%80%af", "%ef%bc%8f", "%u002f", "%2f/"}))
	case 6: // at its end
		return p + m.pick(endings)
	case 7:
		return m.slashEnd(p) + m.pick(endings)
	case 8, 9: // what follows a script or a file
		return m.slashEnd(p) + "/" + m.pick([]string{"x", "", "x.php", "index.php", "a.css", "free", "x/y.jpg", ".php", "%2e", "..", "x/..", ".", "robots.txt", "..%2ffree", "x%2f..%2f..", "articles/1"})
	case 10: // before it
		return m.pick([]string{"/index.php", "/index.php/", "/index.php/x/..", "/free/..", "/free/%2e%2e", `/free\..`, "/free;/..", "/free/..;", "/.", "/x/..", "//", "//site.test", "/%2f", "/INDEX.PHP", "/index.php;x", "/index.php%00", "/index%2ephp", "/index.php/index.php", "/buy.php/..", "/shop/..", "/api/.."}) + p
	case 11: // another file beside it
		return p + m.pick([]string{".gz", ".br", ".zst", ".bak", "~", ".orig", ".php", ".html", ".phtml"})
	case 12: // segments' parameters
		return m.slash(p, m.pick([]string{";x/", ";/", ";jsessionid=1/", "/;", ";.css/", "%3bx/"}))
	case 13: // a NUL, and what ends a path early
		return p + m.pick([]string{"%00", "%00.css", "%00/x", "#", "#x", "%23", "%23x", "%3f", "%3fx", "%0a", "%0d%0a", "%09", "\t", "\x0b", "\x80", "%ff", "%c0%80"})
	case 14: // length
		return m.slash(p, strings.Repeat(m.pick([]string{"/.", "/x/..", "/", "/;", "%2f", "/%2e"}), 1+m.IntN(300))+"/")
	case 15: // an extension
		before, after, found := cutLast(p, ".")
		if !found {
			return p + ".php"
		}
		return before + m.pick([]string{"%2e", "%2E", "%252e", "..", ".x.", ".%70%68%70", "%c0%ae", ".P", ". "}) + after
	default: // a part of it goes
		return m.at(p, func(string) string { return "" })
	}
}

var endings = []string{
	"/", "//", "/.", "/./", "/..", "/%2e", "/%2f", "%2f", "%2F", `\`, "%5c", ".", "..", "%2e", "%20", "%20%20", "+", "%09", "%0a", ";", ";x=1", ";.css",
	"/;x", "&p=1", "=", "::$DATA", "::$INDEX_ALLOCATION", ":$i30:$INDEX_ALLOCATION", "%3a", "*", "%2a", "'", "%27", "%22", ",", "!", "~", "%7e", "_", "1",
}

// escape writes a character in another way.
func (m *mutator) escape(c byte) string {
	switch m.IntN(9) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("%%%02x", c)
	case 4:
		return fmt.Sprintf("%%%02X", c)
	case 5:
		return fmt.Sprintf("%%25%02x", c)
	case 6:
		return fmt.Sprintf("%%%x%%%x", '0'+c>>4, '0'+c&15)
	case 7:
		return fmt.Sprintf("%%u00%02x", c)
	default: // overlong
		return fmt.Sprintf("%%%02x%%%02x", 0xc0|c>>6, 0x80|c&0x3f)
	}
}

// query changes a query, which may be empty, and adds to it.
func (m *mutator) query(q string) string {
	if q == "p=1" && m.chance(0.8) {
		name := m.pick([]string{"p", "p", "p[]", "p[0]", "p[a]", "p[a][b]", "p%00", "p%00x", "p[", "p]", "p.", "p+", "p%20", "p_", "P", "%70", "%50", "p%5b%5d", "p[]x", " p", "+p", "%20p", ".p", "[p", "p\t", "%09p", "p%0a", "p%5b", "p;", "p&p", "p%5B0%5D", "%00p", "p%c0%80", "%ef%bb%bfp"})
		value := m.pick([]string{"1", "1", "1", "01", "+1", "%31", "1;", "1%00", "1x", "1&p=2", "1&p=", "1.0", "1e0", "%201", "0x1", "1%0a", "1,2", "[1]"})
		q = name + m.pick([]string{"=", "=", "=", "=", "==", "%3d", "=+"}) + value
	}
	if q == "" || m.chance(0.4) {
		other := m.pick([]string{"x=1", "feed=rss2", "p=", "p", "p=0", "p=x", "_method=GET", "_method=POST", "_method=post", "_METHOD=POST", ".method=POST", "%5fmethod=POST", "+_method=POST", "_method[]=POST", "_method%00=POST", "_method%00x=POST", "_method=%50OST", "_method=POST%20", "_method=GET&_method=POST", "_method=POST&_method=GET", "_method;=POST", "a[=1", "=", "&", "%", "%zz", "%zz=1", ";", "free", "/../free", "/free"})
		join := m.pick([]string{"&", "&", "&", ";", "&&", "%26", "?"})
		if m.chance(0.5) {
			q = other + join + q
		} else {
			q += join + other
		}
	}
	return q
}

var (
	methods = []string{
		"GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY", "SEARCH", "MOVE", "LOCK", "REPORT", "PURGE", "M-SEARCH",
		"get", "post", "Post", "gET", "hEAD", "options", "G", "FOO", "GET2", "_", "PRI", "LINK", "BREW", "*", "GET,POST", "X-HTTP",
	}
	hosts = []string{
		"", "localhost", "SITE.TEST", "site.test.", "site.test:80", "site.test:0", "127.0.0.1", "[::1]", "other.test", "site.test, other.test", "site.test/free", "site.test#", "a@site.test", "site.test:x", "*",
	}
	paths = []string{"/articles/1", "/free", "/shop/", "/report.pdf", "/buy.php", "/api/send", "/api/order", "/", "/?p=1", "http://site.test/articles/1", "//site.test/articles/1", "/index.php/articles/1"}
)

// header adds a header, or changes how the request is framed.
func (m *mutator) header(r *request) {
	path, method := m.pick(paths), m.pick(methods)
	add := func(format string, values ...any) { r.headers = append(r.headers, fmt.Sprintf(format, values...)) }
	switch m.IntN(16) {
	case 0, 1: // another path
		add("%s: %s", m.name("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-URI", "X-Forwarded-Path", "X-Accel-Redirect", "X-Sendfile", "X-Request-URI", "Request-URI", "X-Forwarded-Prefix", "X-Script-Name", "Script-Name", "SCRIPT_NAME", "PATH_INFO", "Path-Info", "X-Path-Info", "X-WAP-Profile", "X-Override-URL", "Destination"), path)
	case 2, 3: // another method
		add("%s: %s", m.name("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-HTTP-Method-Override", "X-Method", "Method", "REQUEST_METHOD", "X-Original-Method", "X-Forwarded-Method"), method)
	case 4: // who asks
		add("%s: %s", m.name("X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "Forwarded", "Client-IP", "True-Client-IP", "Via", "Front-End-Https", "X-Host", "X-HTTP-Host-Override"), m.pick([]string{"127.0.0.1", "localhost", "https", "site.test", "for=127.0.0.1;host=localhost;proto=https", "on", "443", "1.1 x"}))
	case 5:
		add("Connection: %s", m.pick([]string{"close, X-Probe", "close, Upgrade", "close, X-Forwarded-For", "close, Content-Length", "close, Transfer-Encoding", "close, Host", "close, X-HTTP-Method-Override", "Close", "close, close", "close, Payment-Signature", "close,,"}))
	case 6:
		add("Upgrade: %s", m.pick([]string{"websocket", "h2c", "TLS/1.0", "HTTP/2.0", "h2c, websocket", "foo"}))
		add("Connection: %s", m.pick([]string{"Upgrade, close", "upgrade, HTTP2-Settings, close", "close"}))
		if m.chance(0.3) {
			add("HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
		}
		if m.chance(0.3) {
			add("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
			add("Sec-WebSocket-Version: 13")
		}
		r.odd = true
	case 7: // a part, or none
		add("%s", m.pick([]string{"Range: bytes=0-", "Range: bytes=0-1999", "Range: bytes=-2000", "Range: bytes=0-99,100-1999", "If-None-Match: *", "If-None-Match: \"x\"", "If-Match: *", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "If-Unmodified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "If-Range: \"x\""}))
	case 8: // sidecars
		add("Accept-Encoding: %s", m.pick([]string{"gzip", "gzip, br", "br", "*", "gzip;q=1", "x-gzip", "zstd, gzip", "identity;q=0, gzip", "gzip;q=0"}))
	case 9:
		add("Expect: %s", m.pick([]string{"100-continue", "100-Continue", "x", "200-ok"}))
		r.odd = true
	case 10: // junk for a payment
		add("%s: %s", m.pick([]string{"Payment-Signature", "X-Payment", "PAYMENT_SIGNATURE", "Authorization", "Sign-In-With-X", "Payment-Response", "Paywall-Payment", "Paywall-Payer"}), m.pick([]string{"", "x", "e30=", "eyJ4NDAyVmVyc2lvbiI6MX0=", "eyJ4NDAyVmVyc2lvbiI6Mn0=", "null", "Payment x"}))
	case 11: // who a browser is
		add("%s", m.pick([]string{"Accept: text/html", "Accept: */*", "User-Agent: Mozilla/5.0", "User-Agent: Googlebot", "Origin: null", "Origin: https://app.test", "Sec-Fetch-Mode: cors", "Sec-Purpose: prefetch", "Purpose: prefetch", "Early-Data: 1", "Cookie: p=1", "Cookie: _method=POST", "Referer: http://site.test/", "X-Requested-With: XMLHttpRequest", "Cache-Control: only-if-cached", "Pragma: no-cache", "Depth: 1", "Max-Forwards: 0", "TE: trailers", "DNT: 1"}))
	case 12:
		m.framing(r)
	default: // a header that is there, in another way
		if len(r.headers) == 0 {
			add("Origin: https://app.test")
			return
		}
		i := m.IntN(len(r.headers))
		line := r.headers[i]
		if strings.HasPrefix(line, "Content-Length") || strings.HasPrefix(line, "Transfer-Encoding") || strings.HasPrefix(line, "Connection") {
			return
		}
		name, value, _ := strings.Cut(line, ":")
		r.headers[i] = m.pick([]string{line, strings.ToLower(line), strings.ReplaceAll(name, "-", "_") + ":" + value, name + " :" + value, name + ":\r\n " + value, " " + line, line + " ", line + "\x00", name + ":" + strings.TrimSpace(value), name + ":\t" + value})
	}
}

// name is one of the names of a header, often as CGI and its heirs spell it.
func (m *mutator) name(names ...string) string {
	name := m.pick(names)
	switch m.IntN(8) {
	case 0:
		return strings.ReplaceAll(name, "-", "_")
	case 1:
		return strings.Replace(name, "-", "_", 1)
	case 2:
		return strings.ToLower(name)
	case 3:
		return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	case 4:
		return strings.ReplaceAll(name, "-", m.pick([]string{".", "!", "~", "*", "'"}))
	}
	return name
}

// framing says in an odd way where the body ends.
func (m *mutator) framing(r *request) {
	r.headers, r.odd = dropHeader(r.headers, "Content-Length"), true
	next := "GET /articles/1 HTTP/1.1\r\nHost: site.test\r\n\r\n"
	switch m.IntN(6) {
	case 0:
		r.headers = append(r.headers, "Transfer-Encoding: chunked", "Content-Length: 4")
		r.body = "0\r\n\r\n" + next
	case 1:
		r.headers = append(r.headers, m.pick([]string{"Transfer-Encoding: xchunked", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity", "Transfer-Encoding:\tchunked", "Transfer_Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: Chunked"}))
		r.body = "0\r\n\r\n" + next
	case 2:
		r.headers = append(r.headers, m.pick([]string{"Content-Length: 0, 0", "Content-Length: +0", "Content-Length: -1", "Content-Length: 0x0", "Content_Length: 0", "Content-Length: 00"}))
		r.body = next
	case 3:
		r.headers = append(r.headers, "Content-Length: 0", "Content-Length: 5")
		r.body = next
	case 4:
		r.headers = append(r.headers, "Transfer-Encoding: chunked", "Trailer: X-HTTP-Method-Override, X-Original-URL, X-Zzz")
		r.body = "3\r\np=1\r\n0\r\nX-HTTP-Method-Override: POST\r\nX-Original-URL: /articles/1\r\nX-Zzz: x\r\n\r\n"
	default:
		r.headers = append(r.headers, "Transfer-Encoding: chunked")
		r.body = m.pick([]string{"0\r\n\r\n", "3;x=y\r\np=1\r\n0\r\n\r\n", "3\np=1\n0\n\n", "00000000000000003\r\np=1\r\n0\r\n\r\n", "3\r\np=1\r\n"})
	}
}

// body gives a request a body.
func (m *mutator) body(r *request) {
	r.headers = dropHeader(r.headers, "Content-Length")
	kind := m.pick([]string{"application/x-www-form-urlencoded", "application/json", "text/plain", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded; charset=utf-7", ""})
	r.body = m.pick([]string{"p=1", "_method=POST", "_method=GET&p=1", `{"p":1}`, "x", "--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nPOST\r\n--b--\r\n", "<methodCall/>"})
	r.headers = append(r.headers, fmt.Sprintf("Content-Length: %d", len(r.body)))
	if kind != "" {
		r.headers = append(r.headers, "Content-Type: "+kind)
	}
	if m.chance(0.3) {
		r.method = m.pick([]string{"POST", "GET", "PUT", "OPTIONS", "HEAD"})
	}
}

// preflight makes the request one of a browser that asks whether it may.
func (m *mutator) preflight(r *request) {
	method := r.method
	r.method = m.pick([]string{"OPTIONS", "OPTIONS", "OPTIONS", "options", "GET", "HEAD"})
	if m.chance(0.3) {
		method = m.pick(methods)
	}
	r.headers = append(r.headers, m.pick([]string{"Origin: https://app.test", "Origin: null", "Origin: site.test", "origin: x"}), "Access-Control-Request-Method: "+method)
	if m.chance(0.4) {
		r.headers = append(r.headers, "Access-Control-Request-Headers: "+m.pick([]string{"content-type", "payment-signature", "x-http-method-override", "*"}))
	}
}

// elsewhere asks for something free, and names the goods in another place.
func (m *mutator) elsewhere(r *request, path *string) {
	goods := *path
	*path = m.pick(free)
	r.headers = append(r.headers, m.name("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-URI", "SCRIPT_NAME", "PATH_INFO", "SCRIPT_FILENAME", "REQUEST_URI", "X-Accel-Redirect", "ORIG_PATH_INFO")+": "+goods)
	if m.chance(0.3) {
		*path, r.headers = "/x"+goods, append(r.headers, m.name("SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Forwarded-Prefix")+": /x")
	}
}

// target writes a path and query as another kind of request target.
func (m *mutator) target(t string) string {
	return m.pick([]string{
		"http://site.test" + t, "HTTP://SITE.TEST" + t, "https://site.test" + t, "http://other.test" + t, "http://site.test:80" + t, "http://user@site.test" + t, "http:" + t, "http:/" + t, "x:" + t, "x://y" + t,
		"//site.test" + t, "///" + t, "/" + t, "*", "*" + t, t + "#", t + "#/free", "?" + t, "." + t, ".." + t, "/.." + t, "/%2e%2e" + t, "/http://site.test" + t, strings.TrimPrefix(t, "/"), `\` + t, `http:\\site.test` + t, "@" + t, ";" + t, "%2f" + strings.TrimPrefix(t, "/"), "/;" + t, t + " ", t + " /free", "/free " + t, t + "?", t + "\t", "http://site.test?" + t, "http://site.test#" + t,
	})
}

// at changes one character of a path, but its first slash.
func (m *mutator) at(p string, change func(string) string) string {
	if len(p) < 2 {
		return p
	}
	i := 1 + m.IntN(len(p)-1)
	return p[:i] + change(p[i:i+1]) + p[i+1:]
}

// slash puts something in the place of one slash.
func (m *mutator) slash(p, with string) string {
	var at []int
	for i := range len(p) {
		if p[i] == '/' {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return with + p
	}
	i := at[m.IntN(len(at))]
	return p[:i] + with + p[i+1:]
}

func (*mutator) slashEnd(p string) string { return strings.TrimSuffix(p, "/") }

// few is a small number: how often something of that chance comes before it
// first does not, and three at most.
func (m *mutator) few(chance float64) int {
	n := 0
	for n < 3 && m.chance(chance) {
		n++
		chance /= 2
	}
	return n
}

func (m *mutator) chance(of float64) bool { return m.Float64() < of }

func (m *mutator) pick(from []string) string { return from[m.IntN(len(from))] }

func cutLast(s, at string) (before, after string, found bool) {
	i := strings.LastIndex(s, at)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(at):], true
}

func dropHeader(headers []string, name string) (kept []string) {
	for _, line := range headers {
		if !strings.HasPrefix(line, name+":") {
			kept = append(kept, line)
		}
	}
	return kept
}
