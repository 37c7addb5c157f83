//go:build servers

package servers

import (
	"fmt"
	"strings"
)

// trick is a known way to say a request otherwise.
type trick struct {
	name string
	request
}

// tricks are the known ways to ask for each of a site's goods.
func tricks(goods []good) []trick {
	var all []trick
	for _, g := range goods {
		all = append(all, pathTricks(g)...)
		all = append(all, methodTricks(g)...)
		all = append(all, headerTricks(g)...)
	}
	all = append(all, queryTricks()...)
	all = append(all, overrideTricks()...)
	return append(all, trailerTricks()...)
}

// pathTricks spell the path in other ways.
func pathTricks(g good) []trick {
	p, first, rest := g.path, g.path[1:], ""
	if i := strings.IndexByte(first, '/'); i >= 0 {
		first, rest = first[:i], first[i:]
	}
	last := strings.TrimSuffix(p, "/")
	letter := p
	if first != "" {
		letter = fmt.Sprintf("/%%%02x%s%s", first[0], first[1:], rest)
	}
	var tricks []trick
	for _, t := range []struct{ name, path string }{
		{"as it is", p},
		{"in the absolute form", "http://site.test" + p},
		{"in the absolute form of another host", "http://other.test" + p},
		{"after a host without scheme", "//site.test" + p},
		{"after two slashes", "/" + p},
		{"after three slashes", "//" + p},
		{"with all slashes doubled", strings.ReplaceAll(p, "/", "//")},
		{"after a dot segment", "/." + p},
		{"after a free directory and back", "/free/.." + p},
		{"after a free directory and back, escaped", "/free/%2e%2e" + p},
		{"after a free directory and back, slash escaped", "/free/..%2f" + p[1:]},
		{"after a free directory and back, with a backslash", `/free/..\` + p[1:]},
		{"after a parameter and back", "/x;/.." + p},
		{"above the root", "/.." + p},
		{"first letter escaped", letter},
		{"first letter escaped twice", strings.Replace(letter, "%", "%25", 1)},
		{"slashes escaped", "/" + strings.ReplaceAll(p[1:], "/", "%2f")},
		{"slashes escaped twice", "/" + strings.ReplaceAll(p[1:], "/", "%252f")},
		{"backslashes", "/" + strings.ReplaceAll(p[1:], "/", `\`)},
		{"overlong slashes", "/" + strings.ReplaceAll(p[1:], "/", "%c0%af")},
		{"upper case", strings.ToUpper(p)},
		{"a parameter", p + ";x=1"},
		{"a parameter of the first segment", "/" + first + ";x=1" + rest},
		{"a slash at its end", last + "/"},
		{"no slash at its end", last},
		{"in another format", last + ".json"},
		{"an index file", last + "/index.html"},
		{"above an alias that has a slash more", "/static.." + p},
		{"two slashes at its end", last + "//"},
		{"a dot segment at its end", last + "/."},
		{"a dot at its end", p + "."},
		{"an escaped space at its end", p + "%20"},
		{"a NUL at its end", p + "%00"},
		{"a NUL and a free name at its end", p + "%00.css"},
		{"a tab at its end", p + "%09"},
		{"a line end at its end", p + "%0a"},
		{"an escaped question mark", p + "%3fx"},
		{"an escaped fragment", p + "%23x"},
		{"a fragment", p + "#x"},
		{"an empty query", p + "?"},
		{"path info", last + "/x"},
		{"path info, a style sheet", last + "/x.css"},
		{"path info, a script", last + "/x.php"},
		{"path info, escaped slash", last + "%2fx"},
		{"path info that goes back", last + "/x/.."},
		{"path info that is free", last + "/free"},
		{"after the front controller", "/index.php" + p},
		{"after the front controller, doubled slash", "/index.php/" + p},
		{"after the front controller without a slash", "/index.php" + p[1:]},
		{"after the front controller and path info that goes back", "/index.php/x/.." + p},
		{"a sidecar", p + ".gz"},
		{"another sidecar", p + ".br"},
		{"a stream of Windows", p + "::$DATA"},
	} {
		r := plain(good{g.method, t.path, g.query})
		tricks = append(tricks, trick{"path " + t.name, r})
	}
	return tricks
}

// methodTricks ask with other methods.
func methodTricks(g good) []trick {
	var tricks []trick
	for _, method := range []string{"HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "QUERY", "SEARCH", "FOO", "get", "Get", "post", "hEAD", "options"} {
		r := plain(g)
		r.method = method
		tricks = append(tricks, trick{"method " + method, r})
	}
	for _, asked := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS", "FOO", "post", "*"} {
		r := plain(g)
		r.method, r.headers = "OPTIONS", []string{"Origin: https://app.test", "Access-Control-Request-Method: " + asked}
		tricks = append(tricks, trick{"preflight for " + asked, r})
		r.headers = append(r.headers, "Access-Control-Request-Headers: content-type, payment-signature")
		tricks = append(tricks, trick{"preflight with headers for " + asked, r})
		r.target = "http://site.test" + r.target
		tricks = append(tricks, trick{"preflight in the absolute form for " + asked, r})
	}
	return tricks
}

// headerTricks ask with headers that make servers answer otherwise, or name the
// goods in a header of a request for something free.
func headerTricks(g good) []trick {
	var tricks []trick
	for _, line := range []string{
		"Range: bytes=0-", "Range: bytes=0-1999", "Range: bytes=-2000", "If-None-Match: *", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "If-Range: \"x\"",
		"Accept-Encoding: gzip", "Accept-Encoding: br, gzip", "Expect: 100-continue", "Upgrade: websocket\r\nConnection: Upgrade, close", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
		"Connection: close, Host", "Connection: close, X-Forwarded-For", "Transfer-Encoding: chunked, identity", "X-Payment: x", "Payment-Signature: e30=", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "X-Original-URL: /free", "X-Rewrite-URL: /free", "X-Forwarded-URI: /free",
		"X-HTTP-Method-Override: OPTIONS", "X-HTTP-Method-Override: FOO", "Cookie: p=1", "Early-Data: 1", "Origin: null",
	} {
		r := plain(g)
		r.odd = strings.HasPrefix(line, "Expect") || strings.HasPrefix(line, "Upgrade") || strings.HasPrefix(line, "Transfer")
		r.headers = append(r.headers, line)
		tricks = append(tricks, trick{"header " + line, r})
	}
	for _, host := range []string{"", "localhost", "SITE.TEST", "site.test.", "site.test:1", "127.0.0.1"} {
		r := plain(g)
		r.host = host
		tricks = append(tricks, trick{"host " + host, r})
	}
	for _, version := range []string{"HTTP/1.0", "HTTP/1.2"} {
		r := plain(g)
		r.version = version
		tricks = append(tricks, trick{version, r})
	}
	for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "X_Original_URL", "X_REWRITE_URL", "X.Original.URL", "X-Original-URI", "X-Forwarded-URI", "PATH_INFO", "REQUEST_URI"} {
		for _, from := range []string{"/", "/free"} {
			r := plain(g)
			r.target, r.headers = from, append(r.headers, name+": "+plain(g).target)
			tricks = append(tricks, trick{name + " names it", r})
		}
	}
	for _, name := range []string{"SCRIPT_NAME", "Script-Name", "script_name", "X-Script-Name", "X-Forwarded-Prefix"} {
		r := plain(g)
		r.target, r.headers = "/x"+r.target, append(r.headers, name+": /x")
		tricks = append(tricks, trick{name + " names what comes before it", r})
	}
	return tricks
}

// queryTricks ask for the page that goes by a query, in ways that PHP, Express
// and Python may read as `p=1`.
func queryTricks() []trick {
	var tricks []trick
	for _, path := range []string{"/", "/index.php", "//", "/index.php/", "/?", "/.", "/index%2ephp"} {
		for _, query := range []string{
			"p=1", "p[]=1", "p[0]=1", "p[a]=1", "p[a][b]=1", "p%5b%5d=1", "p%5B0%5D=1", "p[]x=1", "[p]=1", "[p]x=1", "[p]]x=1", "%5Bp%5Dx=1", "p]x=1", "p%00=1", "p%00x=1", "%00p=1", "P=1", "%70=1", "%50=1", "p.=1", "p =1", "p+=1", "p%20=1",
			"+p=1", "%20p=1", "%09p=1", "p=1&p=2", "p=&p=1", "p=0&p=1", "p=1&p=", "p=1&p=0", "p=1&p[]=", "x=1;p=1", "p=1;x=1", "x=1&p=1", "&p=1", "&&p=1&&", "?p=1", "p=%31", "p=+1", "p=01", "p=1x", "p%3d1", "p=1%00",
			"p=1#", "p=1&feed=rss2", "p=1&_method=GET", "p=1&_method=HEAD", "%zz=1&p=1", "p=1&%zz", "a=%&p=1", "p==1", "p[=1", "p&p=1",
		} {
			tricks = append(tricks, trick{"query " + query, plain(good{"GET", path, query})})
			r := plain(good{"HEAD", path, query})
			tricks = append(tricks, trick{"query " + query, r})
		}
	}
	return tricks
}

// overrideTricks make a free GET of the order's form a POST.
func overrideTricks() []trick {
	var tricks []trick
	order := good{"GET", "/api/order", ""}
	for _, name := range []string{"X-HTTP-Method-Override", "x-http-method-override", "X_HTTP_METHOD_OVERRIDE", "X-HTTP_Method-Override", "X.HTTP.Method.Override", "X-Http-Method-override"} {
		for _, value := range []string{"POST", "post", "POST ", "Post"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "get", "FOO"} {
				r := plain(order)
				r.method, r.headers = method, []string{name + ": " + value}
				tricks = append(tricks, trick{"override by " + name, r})
			}
		}
	}
	for _, value := range []string{"GET, POST", "POST, GET", "GET\r\nX-HTTP-Method-Override: POST", "POST\r\nX-HTTP-Method-Override: GET", "\tPOST", "POST;x", "\"POST\""} {
		r := plain(order)
		r.headers = []string{"X-HTTP-Method-Override: " + value}
		tricks = append(tricks, trick{"override by " + value, r})
	}
	for _, query := range []string{
		"_method=POST", "_method=post", "_METHOD=POST", "%5fmethod=POST", "%5Fmethod=%50OST", "_method[]=POST", "_method[0]=POST", "_method%00=POST", "_method%00x=POST", "_method%00;=POST", "_method%00x;y=POST", ".method=POST", "+_method=POST", "%20_method=POST",
		"_method=GET&_method=POST", "_method=POST&_method=GET", "x=1;_method=POST", "x;_method=POST", "?_method=POST", "_method=POST%20", "_method=+POST", "_method=POST%00", "_method=POST,GET", "%zz&_method=POST", "_method=POST;", "_method=POST#",
	} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			r := plain(good{method, "/api/order", query})
			tricks = append(tricks, trick{"override by " + query, r})
		}
		r := plain(good{"OPTIONS", "/api/order", query})
		r.headers = []string{"Origin: https://app.test", "Access-Control-Request-Method: GET"}
		tricks = append(tricks, trick{"preflight, override by " + query, r})
	}
	return tricks
}

// trailerTricks say after the body, where the gate cannot wait for it, what some
// servers (PHP's own) take for a header of the request.
func trailerTricks() []trick {
	var tricks []trick
	for _, free := range []good{{"GET", "/api/order", ""}, {"GET", "/free", ""}, {"HEAD", "/free", ""}, {"GET", "/", ""}} {
		for _, line := range []string{
			"X-HTTP-Method-Override: POST", "X-Http-Method-override: POST",
			"X-Original-URL: /articles/1", "X-Rewrite-URL: /articles/1", "X-Original-URL: /api/send", "X-Rewrite-URL: /api/send",
		} {
			name, _, _ := strings.Cut(line, ":")
			for _, announced := range [][]string{{"Trailer: X-Zzz, " + name}, {"Trailer: X-Zzz", "Trailer: " + name, "TE: trailers"}, {"Trailer: X-Zzz"}, nil} {
				r := plain(free)
				r.headers, r.odd = append(announced, "Transfer-Encoding: chunked"), true
				r.body = "1\r\nx\r\n0\r\n" + line + "\r\nX-Zzz: x\r\n\r\n" // PHP forgets the last one, and Caddy sorts them
				tricks = append(tricks, trick{"trailer " + line, r})
			}
		}
	}
	return tricks
}
