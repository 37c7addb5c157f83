package pricing

import "strings"

// Bounds of the readings of one path. An honest path has a handful.
const (
	maxReadings = 256
	// maxOddPath is how long a path with several readings may be, in bytes.
	maxOddPath = 16 << 10
	// maxReadingBytes is how long all readings of a path may be together: it
	// bounds what a hostile path costs.
	maxReadingBytes = 128 << 10
	// maxDecodes is how often a path may be percent-decoded between us and the
	// code that answers: once by each of two servers.
	maxDecodes = 2
)

// Readings returns every way in which a server behind us may plausibly read a
// path, without the query. There is one for a path without `%`, `;`, `\`, `//`,
// dot segments, control characters and non-ASCII bytes.
//
// The first reading is the path as it came, with those escapes decoded that
// change nothing about its structure: RFC 3986 calls the two equivalent, and
// the patterns of a price list are written that way. The others are what comes
// out when servers, in any order and number, decode once or twice, drop
// `;parameters`, turn backslashes into slashes, merge slashes, resolve dot
// segments, drop control characters and spaces, repair broken UTF-8, or stop
// reading at a NUL, `?` or `#`.
//
// False means that there are too many: such a path must be refused.
func Readings(path string) ([]string, bool) {
	path, _, _ = strings.Cut(path, "?")
	if isPlain(path) {
		return []string{path}, true
	}
	if len(path) > maxOddPath {
		return nil, false
	}
	c := closure{decodes: make(map[string]int)}
	path = decodeHarmless(path)
	if path == "" || path[0] != '/' {
		// `OPTIONS *`, or no path at all: the server may take it for its root.
		c.add("/", 0)
		c.add("/"+path, 0)
	}
	if path != "" {
		c.add(path, 0)
	}
	for i := 0; i < len(c.readings); i++ {
		if c.size > maxReadingBytes || len(c.readings) > maxReadings {
			return nil, false
		}
		c.step(c.readings[i])
		for len(c.again) > 0 {
			next := c.again[len(c.again)-1]
			c.again = c.again[:len(c.again)-1]
			c.step(next)
		}
	}
	return c.readings, true
}

// closure collects readings.
type closure struct {
	readings []string
	size     int
	// decodes says in how few decodings a reading was reached.
	decodes map[string]int
	// again holds readings that were reached with fewer decodings after their
	// step was made.
	again []string
}

// add records a reading that was reached with that many decodings.
func (c *closure) add(path string, decodes int) {
	if path == "" {
		path = "/"
	}
	before, known := c.decodes[path]
	switch {
	case !known:
		c.readings = append(c.readings, path)
		c.size += len(path)
	case decodes < before:
		c.again = append(c.again, path)
	default:
		return
	}
	c.decodes[path] = decodes
}

// step adds what one server can make of a reading in one go.
func (c *closure) step(path string) {
	n := c.decodes[path]
	has := featuresOf(path)
	if has&featEscape != 0 && n < maxDecodes {
		c.add(decodeAll(path, false), n+1)
		c.add(decodeAll(path, true), n+1)
		if strings.Contains(path, "%u") || strings.Contains(path, "%U") {
			c.add(decodeAll(decodeUTF16(path), false), n+1)
		}
	}
	if has&featParams != 0 {
		c.add(dropParams(path), n)
		c.add(path[:strings.IndexByte(path, ';')], n)
		c.add(path[:strings.LastIndexByte(path, ';')], n)
	}
	if has&featBackslash != 0 {
		c.add(strings.ReplaceAll(path, `\`, "/"), n)
	}
	if has&featSlashes != 0 {
		c.add(mergeSlashes(path), n)
	}
	if has&featDots != 0 {
		c.add(resolveDots(path), n)
	}
	if has&featEnd != 0 {
		c.add(path[:strings.IndexAny(path, "\x00?#")], n)
	}
	if has&featBlank != 0 {
		c.add(dropControls(path), n)
		c.add(trimSegments(path), n)
	}
	if has&featHigh != 0 {
		c.add(repairOverlong(path), n)
		c.add(fromLatin1(path), n)
	}
}

// features is a set of what makes a path odd.
type features uint16

const (
	featEscape    features = 1 << iota // %
	featParams                         // ;
	featBackslash                      // \
	featSlashes                        // //
	featDots                           // a segment . or ..
	featEnd                            // NUL ? #
	featBlank                          // control characters and spaces
	featHigh                           // not ASCII
	featRelative                       // does not begin with a slash
)

// isPlain reports whether the path has one reading only.
func isPlain(path string) bool { return featuresOf(path) == 0 }

func featuresOf(path string) features {
	var has features
	if path == "" || path[0] != '/' {
		has |= featRelative
	}
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if i > 0 && path[i-1] == '/' {
				has |= featSlashes
			}
			if isDotSegment(path[i+1:]) {
				has |= featDots
			}
		case c == '%':
			has |= featEscape
		case c == ';':
			has |= featParams
		case c == '\\':
			has |= featBackslash
		case c == '?' || c == '#':
			has |= featEnd
		case c == 0:
			has |= featEnd | featBlank
		case c <= ' ' || c == 0x7f:
			has |= featBlank
		case c >= 0x80:
			has |= featHigh
		}
	}
	return has
}

// isDotSegment reports whether the first segment of s is `.` or `..`.
func isDotSegment(s string) bool {
	if s == "" || s[0] != '.' {
		return false
	}
	s = s[1:]
	if s != "" && s[0] == '.' {
		s = s[1:]
	}
	return s == "" || s[0] == '/'
}

// hasDotSegment reports whether a path has a segment `.` or `..`.
func hasDotSegment(path string) bool { return featuresOf(path)&featDots != 0 }
