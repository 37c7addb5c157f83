package pricing

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPattern is how long a pattern may be, in bytes.
const maxPattern = 1024

// everything is the pattern of the catch-all line; `/*` means the same.
const everything = "*"

// shape is how a pattern selects paths.
type shape uint8

const (
	shapeExact  shape = iota // `/x`, which is `/x/` too
	shapePrefix              // `/x/*`, which covers `/x` too, and `/blog*`
	shapeGlob                // everything else: `*.pdf`, `/a/*/b`, `*mid*`
	shapeAll                 // `/*` and `*`
)

// pattern is one path of a line, read and folded.
type pattern struct {
	shape shape
	// text is the whole pattern.
	text string
	// folders says that the glob is for folders, as `/posts/*/` is: see folderMatches.
	folders bool
	// head is what every matching path begins with, up to the first wildcard.
	// For an exact pattern it is the whole path without a slash at its end.
	// For `/x/*` it is "/x/", although `/x` matches too.
	head string
	// glob is set for shapeGlob.
	glob glob
	// literals is how many characters the pattern fixes.
	literals int
}

// parsePattern reads one path of a line. It refuses what no path can match
// after every reading, such as a pattern with `%2F` or `//`: such a line looks
// as if it protected something.
func parsePattern(s string) (pattern, error) {
	if err := checkPattern(s); err != nil {
		return pattern{}, fmt.Errorf("path %.80q %w", s, err)
	}
	folded := fold(s)
	p, err := readPattern(folded)
	if err != nil {
		return pattern{}, fmt.Errorf("path %.80q %w", s, err)
	}
	p.text = folded
	return p, nil
}

// readPattern reads a folded path that was checked.
func readPattern(folded string) (pattern, error) {
	wild := strings.IndexAny(folded, "*[]")
	folders := wild >= 0 && strings.HasSuffix(folded, "*/")
	if wild >= 0 && !folders {
		folded = trimSlash(folded) // `/users/*/full/` is `/users/*/full`
	}
	switch {
	case folded == everything || folded == "/*":
		return pattern{shape: shapeAll}, nil
	case wild < 0:
		head := trimSlash(folded)
		return pattern{shape: shapeExact, head: head, literals: utf8.RuneCountInString(head)}, nil
	case wild > 0 && wild == len(folded)-1 && folded[wild] == '*':
		head := folded[:wild]
		return pattern{shape: shapePrefix, head: head, literals: utf8.RuneCountInString(head)}, nil
	}
	g, err := parseGlob(folded)
	if err != nil {
		return pattern{}, err
	}
	p := pattern{shape: shapeGlob, head: folded[:wild], glob: g, folders: folders, literals: g.literals()}
	if p.head == "/" {
		// Every path begins with a slash: that fixes nothing.
		p.head = ""
	}
	return p, nil
}

// CheckPattern says what is wrong with one path of a line.
func CheckPattern(s string) error {
	_, err := parsePattern(s)
	return err
}

// checkPattern refuses what must not be in a pattern.
func checkPattern(s string) error {
	switch {
	case s == "":
		return errors.New("is empty; write a path such as /articles/*")
	case len(s) > maxPattern:
		return fmt.Errorf("has more than %d characters; write a shorter one that ends with *", maxPattern)
	case s[0] != '/' && s[0] != '*':
		return fmt.Errorf("must begin with / or *; write /%.80s", s)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8; write it in UTF-8")
	case strings.ContainsAny(s, "{}"):
		return errors.New("holds a placeholder or a brace; write the path itself, one path for each alternative")
	case strings.Contains(s, "%"):
		return errors.New("holds %; write the character itself instead of its escape, or * where it cannot be written: every spelling of it is understood")
	case strings.Contains(s, "?"):
		path, query, _ := strings.Cut(s, "?")
		if query = strings.Trim(query, "?*"); query == "" {
			query = "name=value"
		}
		return fmt.Errorf("holds ?, where a query begins, which is no part of a path; price a query by a matcher: `@query query %.80s` and `price @query %.80s $0.01`; for a single odd character write *", query, path)
	case strings.Contains(s, "/:"):
		before, _, _ := strings.Cut(s, "/:")
		return fmt.Errorf("holds /:, which is no variable here; write * for a part that varies, such as %.80s/*", before)
	case strings.Contains(s, ";"):
		return errors.New("holds ;; leave the parameters out: a path with parameters is read without them too")
	case strings.Contains(s, `\`):
		return errors.New(`holds \; write / instead: both are understood in a request`)
	case strings.Contains(s, "#"):
		return errors.New("holds #, which no server sees; leave it and what follows out")
	case strings.Contains(s, "//"):
		return errors.New("holds //; write one slash: more are understood in a request")
	case strings.Contains(s, "**"):
		return errors.New("holds **; write one *: `/x/*` covers everything below /x")
	case hasDotSegment(s):
		return errors.New("holds the segment . or ..; write the path that it leads to")
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError {
			return errors.New("holds a space or a control character; write * in its place")
		}
	}
	return nil
}

// trimSlash removes one slash at the end, so that `/x` and `/x/` are one path.
// The root keeps its slash.
func trimSlash(s string) string {
	if len(s) > 1 && s[len(s)-1] == '/' {
		return s[:len(s)-1]
	}
	return s
}

// matches reports whether the folded path is one of the pattern's. The index
// finds exact and prefix patterns by their head without asking.
func (p *pattern) matches(path string) bool {
	switch p.shape {
	case shapeExact:
		return trimSlash(path) == p.head
	case shapePrefix:
		return strings.HasPrefix(path, p.head) ||
			p.head[len(p.head)-1] == '/' && path == p.head[:len(p.head)-1]
	case shapeGlob:
		ok, _ := p.globMatches(path)
		return ok
	default:
		return true
	}
}

// globMatches is matches for a glob, and says how much it has looked at.
func (p *pattern) globMatches(path string) (ok bool, looked int) {
	if p.folders && !strings.HasSuffix(path, "/") {
		return p.folderMatches(path)
	}
	ok, looked = p.glob.look(path)
	if trimmed := trimSlash(path); !ok && len(trimmed) != len(path) {
		var more int
		ok, more = p.glob.look(trimmed)
		looked += more
	}
	return ok, looked
}

// folderMatches is globMatches for a glob for folders and a path without the slash that
// the glob ends with: servers answer `/posts/7` with the page of `/posts/7/`. A name with
// an ending is no folder, but a file beside the folders, and so is an `index`.
func (p *pattern) folderMatches(path string) (ok bool, looked int) {
	if !strings.HasPrefix(path, p.glob.head) {
		return false, missCost
	}
	if name := path[strings.LastIndexByte(path, '/')+1:]; hasEnding(name) || isIndexName(name) {
		return false, missCost + len(name)
	}
	ok, looked = p.glob.lookInside(path[len(p.glob.head):])
	return ok, missCost + looked
}

// ends reports whether the pattern fixes an ending for the names that it matches.
func (p *pattern) ends() bool {
	end := p.head
	switch {
	case p.shape == shapeExact:
	case p.shape == shapePrefix && end[len(end)-1] == '/': // `/v1.2/*` is for `/v1.2` too
		end = end[:len(end)-1]
	case p.shape == shapeGlob:
		end = p.glob.tail
	default:
		return false
	}
	name := end[strings.LastIndexByte(end, '/')+1:]
	return strings.LastIndexByte(name, '.') > 0 || p.shape == shapeGlob && len(name) == len(end) && strings.HasPrefix(name, ".")
}
