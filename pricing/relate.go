package pricing

import (
	"strings"
)

// Covers reports whether every path that the pattern b matches is matched by
// the pattern a too. It may say false where it cannot tell.
func Covers(a, b string) bool {
	p, err := parsePattern(a)
	if err != nil {
		return false
	}
	q, err := parsePattern(b)
	if err != nil {
		return false
	}
	switch p.shape {
	case shapeAll:
		return true
	case shapeExact:
		return q.shape == shapeExact && q.head == p.head
	case shapePrefix:
		below := strings.HasSuffix(p.head, "/") && q.shape == shapeExact && q.head+"/" == p.head
		return below || q.shape != shapeAll && strings.HasPrefix(q.head, p.head)
	default:
		// All of the second have the end of the first, or there is nothing to compare.
		sameEnd := q.shape == shapeGlob && strings.HasSuffix(q.glob.tail, p.glob.tail)
		return fold(a) == fold(b) || q.shape == shapeExact && p.matches(q.head) || sameEnd && p.contains(&q)
	}
}

// Overlap reports whether some path is matched by both patterns. An error means
// that one of them is none.
func Overlap(a, b string) (bool, error) {
	p, err := parsePattern(a)
	if err != nil {
		return false, err
	}
	q, err := parsePattern(b)
	if err != nil {
		return false, err
	}
	return p.touches(&q), nil
}

// meets reports whether a path of q, neither being a glob, begins as all paths
// of p do.
func (p *pattern) meets(q *pattern) bool {
	switch p.shape {
	case shapeAll:
		return true
	case shapeExact:
		return q.shape == shapeExact && p.head == q.head
	default:
		return q.shape != shapeAll && (strings.HasPrefix(q.head, p.head) || q.head+"/" == p.head)
	}
}

// symbols is the pattern as a glob has it.
func (p *pattern) symbols() []symbol {
	switch p.shape {
	case shapeGlob:
		return p.glob.symbols
	case shapeAll:
		return []symbol{{kind: symDeep}}
	}
	head, end := p.head, []symbol(nil)
	if p.shape == shapePrefix {
		end = []symbol{{kind: symDeep}}
		if trimmed, ok := strings.CutSuffix(head, "/"); ok {
			head, end = trimmed, []symbol{{kind: symBelow}}
		}
	}
	symbols := make([]symbol, 0, len(head)+1)
	for _, r := range head {
		symbols = append(symbols, symbol{kind: symLiteral, char: r})
	}
	return append(symbols, end...)
}

// Example is a path that the pattern matches, unescaped; false if it is no
// pattern, or if none was found.
func Example(s string) (string, bool) {
	p, err := parsePattern(s)
	if err != nil {
		return "", false
	}
	var path string
	switch p.shape {
	case shapeAll:
		path = "/x"
	case shapeExact:
		path = s // letter case means nothing to us, but perhaps to the upstream
	case shapePrefix:
		path = strings.TrimSuffix(s, "*") + "x"
	default:
		var b strings.Builder
		for _, sym := range p.glob.symbols {
			sym.example(&b)
		}
		if path = b.String(); !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
	}
	return path, p.matches(fold(path))
}

// example writes what the symbol takes.
func (s symbol) example(b *strings.Builder) {
	switch s.kind {
	case symLiteral:
		b.WriteRune(s.char)
	case symBelow:
		b.WriteString("/x")
	case symSlash:
	case symClass:
		for r := '!'; r <= '\u00ff'; r++ {
			if strings.ContainsRune(`/%?#;\`, r) {
				continue
			}
			if s.takes(r) {
				b.WriteRune(r)
				return
			}
		}
	default:
		b.WriteByte('x')
	}
}
