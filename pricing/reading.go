package pricing

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of the readings of one request. An honest one has a handful.
const (
	maxReadings = 256
	// maxOddPath is how long a path with several readings may be, in bytes.
	// Pictures are asked for by what they show, in base64 with its slashes.
	maxOddPath = 10 << 10
	// maxDecodes is how often a path may be percent-decoded between us and the
	// code that answers: once by each of two servers.
	maxDecodes = 2
)

// What work costs beside the bytes that it copies, in bytes that are copied: see
// budget.
const (
	stepCost   = 40  // a step that makes another reading of one
	lookUpCost = 100 // a look into the index
	probeCost  = 16  // a list of the index
	methodCost = 24  // a further method
	answerCost = 12  // what a matcher said before
	highCost   = 3   // a byte that is not ASCII, where it is looked at
	foldCost   = 6   // such a byte where letters are compared
	normCost   = 12  // such a byte where it is not known to be normal
	nfcCost    = 40  // such a byte where it is composed
	growCost   = 16  // a byte more that comes of it
)

// Readings returns every way in which a server behind us may plausibly read a
// path, without the query. There is one for a path without `%`, `;`, `\`, `//`,
// dot segments, control characters, non-ASCII bytes, and the oddities of file
// systems and front controllers below.
//
// The first reading is the path as it came, with those escapes decoded that
// change nothing about its structure: RFC 3986 calls the two equivalent, and
// the patterns of a price list are written that way. The others are what comes
// out when servers, in any order and number, decode once or twice, drop
// `;parameters`, turn backslashes into slashes, merge slashes, resolve dot
// segments, drop control characters and spaces, repair broken UTF-8, write
// characters in their compatible form, stop reading at a NUL, `?` or `#`, drop
// what Windows drops from the names of files, take `//name` for a host, or read
// `/index.php/articles/1` as what follows the script. What a script's own price has to do
// with that, and the other names of a page, Decide asks of each reading.
//
// False means that there are too many: such a path must be refused.
func Readings(path string) ([]string, bool) {
	path, _, _ = strings.Cut(path, "?")
	if isPlain(path) {
		return []string{path}, true
	}
	c := closure{spent: new(int), budget: budget + budgetPerByte*min(len(path), budgetLength)}
	return c.close([]string{path})
}

// closure collects the readings of the paths of one request.
type closure struct {
	readings []string
	seen     map[string]struct{} // the same, once there are many
	spent    *int
	budget   int
	params   int // the fewest `;` of a path that has any
}

// fewParams is up to how many `;` the last parameter of a path is cut off again and
// again. Where there are more it is cut off once: they are a list of things, and no
// server is known that drops the end of one, and the end of what is left.
const fewParams = 8

// close returns every reading of several paths without queries: those of each
// path are those that it has alone. False means that there are too many, or that
// they cost too much.
func (c *closure) close(paths []string) ([]string, bool) {
	for _, path := range paths {
		if *c.spent += len(path); *c.spent > c.budget || len(path) > maxOddPath && !isPlain(path) {
			return nil, false
		}
		c.begin(path)
	}
	for _, reading := range c.readings {
		if params := strings.Count(reading, ";"); params > 0 && (c.params == 0 || params < c.params) {
			c.params = params
		}
	}
	// Close what is there under every step but decoding, then decode all of it
	// and close the result: so each reading is reached with the fewest
	// decodings.
	for decodes, from := 0, 0; ; decodes++ {
		for i := from; i < len(c.readings); i++ {
			c.respell(c.readings[i])
			if *c.spent > c.budget || len(c.readings) > maxReadings {
				return nil, false
			}
		}
		if decodes == maxDecodes {
			return c.readings, true
		}
		closed := len(c.readings)
		for _, reading := range c.readings[from:closed] {
			c.decode(reading)
		}
		from = closed
	}
}

// begin records a path as it came.
func (c *closure) begin(path string) {
	path = decodeHarmless(path)
	if path == "" || path[0] != '/' {
		// `OPTIONS *`, or no path at all: the server may take it for its root.
		c.add("/")
		c.add("/" + path)
	}
	c.add(path)
}

// few is how many readings are compared one by one.
const few = 8

// add records a reading.
func (c *closure) add(path string) {
	if path == "" {
		path = "/"
	}
	*c.spent += len(path)
	if len(c.readings) < few {
		if !slices.Contains(c.readings, path) {
			c.readings = append(c.readings, path)
		}
		return
	}
	if c.seen == nil {
		c.seen = make(map[string]struct{}, 4*few)
		for _, reading := range c.readings {
			c.seen[reading] = struct{}{}
		}
	}
	if _, ok := c.seen[path]; !ok {
		c.seen[path] = struct{}{}
		c.readings = append(c.readings, path)
	}
}

// step adds what one step makes of a reading, unless nothing is left to pay for
// it: then the request is refused anyway.
func (c *closure) step(path string, by func(string) string) {
	if *c.spent += stepCost + len(path); *c.spent <= c.budget {
		c.add(by(path))
	}
}

// decode adds what decoding once can make of a reading.
func (c *closure) decode(path string) {
	if strings.IndexByte(path, '%') < 0 {
		return
	}
	c.step(path, decodeAll)
	if strings.Contains(path, "%2f") || strings.Contains(path, "%2F") {
		c.step(path, decodeAllButSlashes)
	}
	if strings.Contains(path, "%u") || strings.Contains(path, "%U") {
		c.step(path, decodeAllAndUTF16)
	}
}

// respell adds what one server can make of a reading in one step, without
// decoding it.
func (c *closure) respell(path string) {
	*c.spent += len(path)
	has := featuresOf(path)
	if has&featParams != 0 {
		c.step(path, dropParams)
		c.step(path, cutFirstParams)
		c.step(path, cutNameParams)
		if params := strings.Count(path, ";"); params <= fewParams || params >= c.params {
			c.step(path, cutLastParams)
		}
	}
	if has&featBackslash != 0 {
		c.step(path, turnBackslashes)
	}
	if has&featSlashes != 0 {
		c.step(path, mergeSlashes)
		c.step(path, dropAuthority)
	}
	if has&featDots != 0 {
		c.step(path, resolveDots)
	}
	if has&featEnd != 0 {
		c.step(path, cutEnd)
	}
	if has&featBlank != 0 {
		c.step(path, dropControls)
		c.step(path, trimStarts)
		c.step(path, trimStart)
	}
	if has&(featBlank|featWindows) != 0 {
		c.step(path, trimSegments)
	}
	if has&featHigh != 0 {
		*c.spent += highCost * highBytes(path)
		c.step(path, repairOverlong)
		c.step(path, fromLatin1)
		if !isSettledText(path) {
			normal := norm.NFKC.QuickSpanString(path)
			if *c.spent += normCost * highBytes(path[:normal]); normal < len(path) {
				c.step(path, c.compose)
			}
		}
	}
	if has&featWindows != 0 {
		c.step(path, dropStreams)
	}
	if has&featUp != 0 {
		c.step(path, splitUps)
	}
	if has&featGlued != 0 {
		c.step(path, gluedPathInfo)
	}
	if has&featScript != 0 {
		c.step(path, pathInfo)
	}
}

// compose writes the characters in their compatible form, piece by piece: one of
// three bytes may become thirty, and what comes out is what it costs.
func (c *closure) compose(path string) string {
	const piece = 64
	out := make([]byte, 0, len(path)+piece)
	path, settled := composeSimply(path, func(r rune) rune { return r })
	if *c.spent += foldCost * highBytes(path); settled {
		return path
	}
	for rest := path; rest != "" && *c.spent <= c.budget; {
		end := min(piece, len(rest))
		for end < len(rest) && !utf8.RuneStart(rest[end]) {
			end++
		}
		before := len(out)
		out = norm.NFKC.AppendString(out, rest[:end])
		*c.spent += nfcCost*highBytes(rest[:end]) + growCost*max(0, len(out)-before-end)
		rest = rest[end:]
	}
	return string(out)
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
	featWindows                        // a segment with a dot at its end, or `:$`
	featScript                         // .php/ and the like
	featGlued                          // .phparticles
	featUp                             // a segment with `..` at its end
	featLook                           // in byteFeatures only
)

// isPlain reports whether the path has one reading only.
func isPlain(path string) bool { return isSimple(path) || featuresOf(path) == 0 }

// isSimple is a quick look that finds most of the paths without features: names
// of letters, digits, `-` and `_`, with one slash before each.
func isSimple(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := range len(path) {
		c := path[i]
		if !simple[c] && (c != '/' || i > 0 && path[i-1] == '/') {
			return false
		}
	}
	return true
}

// simple are the bytes of names that have nothing odd.
var simple = func() (t [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_" {
		t[c] = true
	}
	return t
}()

// byteFeatures is what a byte says alone; featLook stands for those of which it
// depends on others.
var byteFeatures = func() (t [256]features) {
	for c := range t {
		switch {
		case c <= ' ' || c == 0x7f:
			t[c] = featBlank
		case c >= 0x80:
			t[c] = featHigh
		}
	}
	t[0] |= featEnd
	t['?'], t['#'], t['%'], t[';'], t['\\'] = featEnd, featEnd, featEscape, featParams, featBackslash
	t['/'], t['.'], t['$'] = featLook, featLook, featLook
	return t
}()

func featuresOf(path string) features {
	var has features
	if path == "" || path[0] != '/' {
		has |= featRelative
	}
	slash, dot := -1, -1 // the last ones
	for i := range len(path) {
		f := byteFeatures[path[i]]
		if f == 0 {
			continue
		}
		if f != featLook {
			has |= f
			continue
		}
		switch path[i] {
		case '.':
			dot = i
			if isGlued(path[i:]) {
				has |= featGlued
			}
			if slash == i-1 && isDotSegment(path[i:]) && i > 0 {
				has |= featDots
			}
		case '$':
			if i > 0 && path[i-1] == ':' {
				has |= featWindows
			}
		case '/':
			switch {
			case i == 0:
			case path[i-1] == '/':
				has |= featSlashes
			case path[i-1] == '.':
				if endsWithDot(path[slash+1 : i]) {
					has |= featWindows
				}
				if endsUp(path[slash+1 : i]) {
					has |= featUp
				}
			case dot > slash && endsWithScript(path[:i]):
				has |= featScript
			}
			slash = i
		}
	}
	if endsWithDot(path) {
		has |= featWindows
	}
	return has
}

// endsWithDot reports whether the last segment of s ends with a dot, and has
// more than dots.
func endsWithDot(s string) bool {
	if s == "" || s[len(s)-1] != '.' {
		return false
	}
	trimmed := strings.TrimRight(s, ".")
	return trimmed != "" && trimmed[len(trimmed)-1] != '/'
}

// endsUp reports whether a segment ends with two dots, and has something else before them.
func endsUp(segment string) bool {
	name, ok := strings.CutSuffix(segment, "..")
	return ok && name != "" && name[len(name)-1] != '.'
}

// highBytes is how many bytes are not ASCII.
func highBytes(s string) (n int) {
	for i := range len(s) {
		n += int(s[i] >> 7)
	}
	return n
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
