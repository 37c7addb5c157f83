package model

import (
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The steps are written with other means than the code they test, and plainly:
// what they read must be beyond doubt.

var (
	escape  = regexp.MustCompile(`%[0-9a-fA-F]{2}`)
	escapeU = regexp.MustCompile(`%[uU][0-9a-fA-F]{4}`)
	slashes = regexp.MustCompile(`/+`)
	param   = regexp.MustCompile(`;[^/]*`)
	control = regexp.MustCompile(`[\x00-\x1f\x7f]`)
	tabs    = regexp.MustCompile(`[\t\r\n]`)
	// trailing is what Windows drops at the end of a file's name.
	trailing = regexp.MustCompile(`([^/. ])[. ]+(/|$)`)
	// stream names a stream of a file or folder.
	stream = regexp.MustCompile(`:+\$[^/]*`)
	// script is the program of a front controller, and what follows it.
	script = regexp.MustCompile(`(?i)^(.*)/[^/]*\.php(/.*)$`)
	// program ends the name of a script.
	program = regexp.MustCompile(`(?i)\.php/`)
	// format is an ending of the last name.
	format = regexp.MustCompile(`^(.*/[^./]+)\.[^/]*/?$`)
	// network begins a URL without a scheme.
	network = regexp.MustCompile(`^//+[^/]*`)
)

func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[1:], 16, 8)
		return string([]byte{byte(n)})
	})
}

func dropFormat(s string) string { return format.ReplaceAllString(s, "$1") }

func decodeU(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return escapeU.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[2:], 16, 32)
		return string(rune(n))
	})
}

func merge(s string) string {
	if !strings.Contains(s, "//") {
		return s
	}
	return slashes.ReplaceAllString(s, "/")
}

// dots resolves dot segments as file systems do.
func dots(s string) string { return path.Clean("/" + s) }

func params(s string) string {
	if !strings.Contains(s, ";") {
		return s
	}
	return param.ReplaceAllString(s, "")
}

func backslashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

func controls(s string) string { return control.ReplaceAllString(s, "") }

func dropTabs(s string) string { return tabs.ReplaceAllString(s, "") }

func cut(at string) step {
	return func(s string) string {
		s, _, _ = strings.Cut(s, at)
		return s
	}
}

// dropSlashesInSegments resolves dot segments while an escaped slash is still a
// part of its segment.
func dropSlashesInSegments(s string) string {
	var out []string
	for segment := range strings.SplitSeq(s, "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".", "":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, segment)
		}
	}
	return "/" + strings.Join(out, "/")
}

// whatwgDots resolves dot segments as browsers' parsers do: an escaped dot
// counts, and empty segments are segments.
func whatwgDots(s string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(s, "/"), "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, segment)
		}
	}
	return "/" + strings.Join(out, "/")
}

// overlong reads characters in two to four bytes that need one.
func overlong(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		continuation := func(n int) bool { return i+n < len(s) && s[i+n]&0xc0 == 0x80 }
		switch {
		case c&0xfe == 0xc0 && continuation(1):
			b.WriteByte(c&1<<6 | s[i+1]&0x3f)
			i++
		case c == 0xe0 && continuation(1) && s[i+1]&0x3e == 0 && continuation(2):
			b.WriteByte(s[i+1]&1<<6 | s[i+2]&0x3f)
			i += 2
		case c == 0xf0 && continuation(1) && s[i+1] == 0x80 && continuation(2) && s[i+2]&0x3e == 0 && continuation(3):
			b.WriteByte(s[i+2]&1<<6 | s[i+3]&0x3f)
			i += 3
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// windows drops what Windows drops from the names of files.
func windows(s string) string {
	s = stream.ReplaceAllString(s, "")
	for {
		again := trailing.ReplaceAllString(s, "$1$2")
		if again == s {
			return s
		}
		s = again
	}
}

func latin1(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

func foldCase(s string) string {
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, s)
}

func compose(s string) string { return norm.NFKC.String(s) }

// pathInfo is the path behind the name of a script.
func pathInfo(s string) string {
	if m := script.FindStringSubmatch(s); m != nil {
		return m[1] + m[2]
	}
	return s
}

// scriptName is the first script's name, without what follows it.
func scriptName(s string) string {
	if at := program.FindStringIndex(s); at != nil {
		return s[:at[0]+len(".php")]
	}
	return s
}

// authority takes `//host` for a host.
func authority(s string) string {
	if s = network.ReplaceAllString(s, ""); s == "" {
		return "/"
	}
	return s
}
