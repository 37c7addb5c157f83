package pricing

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// This file holds the single steps of which Readings makes its closure. Each
// returns the path unchanged where it has nothing to do.

// decodeHarmless decodes the escapes that cannot change how a path falls into
// segments, parameters and escapes. Invalid escapes stay.
func decodeHarmless(path string) string {
	return decode(path, func(c byte) bool {
		return c >= ' ' && c != 0x7f && strings.IndexByte(`/\%;?#`, c) < 0
	})
}

// decodeAll decodes every escape.
func decodeAll(path string) string { return decode(path, func(byte) bool { return true }) }

// decodeAllButSlashes decodes all but `%2F`: servers that split a path into
// segments first see such a slash inside a segment, and a following `..` removes
// it together with what is around it.
func decodeAllButSlashes(path string) string {
	return decode(path, func(c byte) bool { return c != '/' })
}

// decodeAllAndUTF16 decodes every escape, `%u002f` among them.
func decodeAllAndUTF16(path string) string { return decodeAll(decodeUTF16(path)) }

// decode decodes the escapes of the bytes that want says.
func decode(path string, want func(byte) bool) string {
	var b strings.Builder
	done := 0 // up to here it is in b
	for i := strings.IndexByte(path, '%'); i >= 0 && i+2 < len(path); {
		hi, lo := unhex(path[i+1]), unhex(path[i+2])
		next := i + 1
		if c := hi<<4 | lo; hi < 16 && lo < 16 && want(c) {
			if b.Cap() == 0 {
				b.Grow(len(path))
			}
			b.WriteString(path[done:i])
			b.WriteByte(c)
			next = i + 3
			done = next
		}
		if i = strings.IndexByte(path[next:], '%'); i >= 0 {
			i += next
		}
	}
	if done == 0 {
		return path
	}
	b.WriteString(path[done:])
	return b.String()
}

// unhex is the value of a hexadecimal digit, or more than 15.
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

// decodeUTF16 decodes `%u002f`, which some servers of Microsoft understand.
func decodeUTF16(path string) string {
	const length = len("%u002f")
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		if i+length <= len(path) && path[i] == '%' && path[i+1]|0x20 == 'u' {
			var r rune
			valid := true
			for j := i + 2; j < i+length; j++ {
				digit := unhex(path[j])
				valid = valid && digit < 16
				r = r<<4 | rune(digit&0xf)
			}
			if valid {
				b.WriteRune(r)
				i += length - 1
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// dropParams removes `;parameters` from each segment.
func dropParams(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for {
		from := strings.IndexByte(path, ';')
		if from < 0 {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(path[:from])
		to := strings.IndexByte(path[from:], '/')
		if to < 0 {
			return b.String()
		}
		path = path[from+to:]
	}
}

// cutFirstParams ends the path before its first parameter.
func cutFirstParams(path string) string { return path[:strings.IndexByte(path, ';')] }

// cutNameParams ends the path before the first parameter of the last segment that
// has any, as Python's urlparse does.
func cutNameParams(path string) string {
	last := strings.LastIndexByte(path, ';')
	segment := strings.LastIndexByte(path[:last], '/') + 1
	return path[:segment+strings.IndexByte(path[segment:], ';')]
}

// cutLastParams ends the path before its last one.
func cutLastParams(path string) string { return path[:strings.LastIndexByte(path, ';')] }

// cutEnd ends the path where C does, or where a query or a fragment begins.
func cutEnd(path string) string { return path[:strings.IndexAny(path, "\x00?#")] }

func turnBackslashes(path string) string { return strings.ReplaceAll(path, `\`, "/") }

// mergeSlashes leaves one slash of several in a row.
func mergeSlashes(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for {
		at := strings.Index(path, "//")
		if at < 0 {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(path[:at+1])
		path = strings.TrimLeft(path[at+2:], "/")
	}
}

// resolveDots removes dot segments as RFC 3986, 5.2.4 does: `..` takes the
// segment before it away, also an empty one, and nothing leads above the root.
func resolveDots(path string) string {
	out := make([]byte, 0, len(path)+1)
	for i := 0; i < len(path); {
		// A segment with the slash before it.
		end := i + 1
		for end < len(path) && path[end] != '/' {
			end++
		}
		segment := path[i:end]
		i = end
		switch {
		case segment != "/." && segment != "/..":
			out = append(out, segment...)
			continue
		case segment == "/..":
			out = out[:max(0, bytes.LastIndexByte(out, '/'))]
		}
		if i == len(path) {
			out = append(out, '/')
		}
	}
	return string(out)
}

// dropControls removes control characters, as URL parsers of browsers and of
// JavaScript do with tabs and line ends. It also covers the patterns of
// upstreams that end before a line end.
func dropControls(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i := range len(path) {
		if path[i] >= ' ' && path[i] != 0x7f {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// trimSegments removes spaces, control characters and dots from the end of each
// segment, as the file system of Windows does. Dot segments stay.
func trimSegments(path string) string {
	out := make([]byte, 0, len(path))
	start := 0 // of the segment in out
	for i := 0; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			end := len(out)
			for end > start && (out[end-1] <= ' ' || out[end-1] == 0x7f || out[end-1] == '.') {
				end--
			}
			if end == start {
				// Nothing but these: a dot segment, or no name at all.
				end = start + len(bytes.TrimRightFunc(out[start:], isBlank))
				if bytes.ContainsFunc(out[start:end], isBlank) {
					end = start
				}
			}
			out = out[:end]
		}
		if i < len(path) {
			out = append(out, path[i])
			if path[i] == '/' {
				start = len(out)
			}
		}
	}
	return string(out)
}

// trimStarts removes spaces and control characters from the beginning of each segment,
// trimStart from that of the path alone: front controllers trim what they look up.
func trimStarts(path string) string {
	out := make([]byte, 0, len(path))
	begins := true
	for i := range len(path) {
		blank := path[i] <= ' ' || path[i] == 0x7f
		if begins = path[i] == '/' || begins && blank; blank && begins {
			continue
		}
		out = append(out, path[i])
	}
	return string(out)
}

func trimStart(path string) string {
	if path == "" || path[0] != '/' {
		return path
	}
	return "/" + strings.TrimLeftFunc(path[1:], isBlank)
}

func isBlank(r rune) bool { return r <= ' ' || r == 0x7f }

// dropStreams removes the names of streams from segments: on Windows
// `/a::$DATA` is `/a`.
func dropStreams(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		if at := strings.Index(segment, ":$"); at >= 0 {
			segment = strings.TrimRight(segment[:at], ":")
		}
		b.WriteString(segment)
	}
	return b.String()
}

// endsWithScript reports whether the last segment of a path is the name of a program that
// servers run with the rest of the path. It knows the common ends; what follows any other
// program is found by the program's price.
func endsWithScript(path string) bool {
	const longest = len(".phtml")
	from := max(0, len(path)-longest)
	dot := strings.LastIndexByte(path[from:], '.')
	if dot < 0 || from+dot == 0 {
		return false
	}
	end := path[from+dot+1:]
	var low [longest]byte
	for i := range len(end) {
		low[i] = end[i] | 0x20 // digits stay what they are
	}
	switch string(low[:len(end)]) {
	case "php", "cgi", "fcgi", "pl", "py", "asp", "aspx", "ashx", "asmx", "cfm", "jsp",
		"phtml", "phar", "pht", "php3", "php4", "php5", "php7", "php8", "fpl", "plx", "wsgi", "rb", "lua", "tcl", "sh",
		"bat", "exe", "dll", "axd", "svc", "cfc", "cfml", "jspx", "jspa", "jhtml", "do", "shtml", "shtm", "stm", "nsf":
		return true
	}
	return false
}

// splitUps puts a slash before two dots at the end of a segment that others follow. nginx
// with `location /static { alias /srv/www/static/; }` takes `/static../posts/x` for
// `/srv/www/static/../posts/x`.
func splitUps(path string) string {
	var b strings.Builder
	b.Grow(len(path) + 1)
	for {
		segment, rest, more := strings.Cut(path, "/")
		if more && endsUp(segment) {
			b.WriteString(segment[:len(segment)-2])
			segment = "/.."
		}
		b.WriteString(segment)
		if !more {
			return b.String()
		}
		b.WriteByte('/')
		path = rest
	}
}

// pathInfo leaves out the first script's name where more follows it:
// applications with a front controller take `/blog/index.php/a` for `/blog/a`.
func pathInfo(path string) string {
	for i := range len(path) {
		if path[i] == '/' && endsWithScript(path[:i]) {
			return path[:strings.LastIndexByte(path[:i], '/')] + path[i:]
		}
	}
	return path
}

// dropAuthority drops the host from a path that begins with two slashes: who
// resolves such a path as a URL, as many servers in JavaScript do, takes what
// follows the slashes for a host.
func dropAuthority(path string) string {
	if !strings.HasPrefix(path, "//") {
		return path
	}
	_, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	return "/" + rest
}

// repairOverlong reads ASCII characters that are spelled in two to four bytes,
// which valid UTF-8 forbids and careless decoders accept.
func repairOverlong(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); {
		if c, n := overlong(path[i:]); n > 0 {
			b.WriteByte(c)
			i += n
			continue
		}
		b.WriteByte(path[i])
		i++
	}
	return b.String()
}

// overlong decodes one overlong ASCII character at the beginning of s, and says
// how many bytes it has; 0 means that there is none.
func overlong(s string) (c byte, n int) {
	var lead string
	switch {
	case s[0] == 0xc0 || s[0] == 0xc1:
		// The last of the six bits that the lead byte carries.
		if len(s) > 1 && s[1]&0xc0 == 0x80 {
			return s[0]&1<<6 | s[1]&0x3f, 2
		}
		return 0, 0
	case strings.HasPrefix(s, "\xe0\x80"), strings.HasPrefix(s, "\xe0\x81"):
		lead = s[:2]
	case strings.HasPrefix(s, "\xf0\x80\x80"), strings.HasPrefix(s, "\xf0\x80\x81"):
		lead = s[:3]
	default:
		return 0, 0
	}
	if len(s) == len(lead) || s[len(lead)]&0xc0 != 0x80 {
		return 0, 0
	}
	return lead[len(lead)-1]&1<<6 | s[len(lead)]&0x3f, len(lead) + 1
}

// fromLatin1 reads bytes that are no UTF-8 as ISO 8859-1, so that `/caf%E9` is
// `/café`. A path in UTF-8 stays.
func fromLatin1(path string) string {
	if utf8.ValidString(path) {
		return path
	}
	var b strings.Builder
	b.Grow(2 * len(path))
	for i := range len(path) {
		b.WriteRune(rune(path[i]))
	}
	return b.String()
}

// isGlued says whether s begins with the ending of a script that goes on without a
// slash.
func isGlued(s string) bool {
	const ending = ".php"
	return len(s) > len(ending) && strings.EqualFold(s[:len(ending)], ending) && s[len(ending)] != '/'
}

// gluedPathInfo leaves out a script's name to which more is glued: front controllers
// that strip their own name from the path take `/index.phparticles/1` for
// `/articles/1`, as Symfony did (CVE-2025-64500).
func gluedPathInfo(path string) string {
	slash := 0
	for i := range len(path) {
		switch {
		case path[i] == '/':
			slash = i
		case path[i] == '.' && isGlued(path[i:]):
			return path[:slash+1] + path[i+len(".php"):]
		}
	}
	return path
}
