package pricing

import (
	"errors"
	"fmt"
	"math/bits"
	"net/http"
	"slices"
	"strings"
)

// Kind says what becomes of a request. The zero Kind is no decision: a caller
// that forgets an error meets it, and not something free.
type Kind int

// What becomes of a request.
const (
	// Undecided is what comes with an error. It must be refused.
	Undecided Kind = iota
	// Free: the request costs nothing.
	Free
	// Priced: the request costs the price of the decision.
	Priced
	// Refused: nothing names the request, and the list refuses such requests
	// (403).
	Refused
	// MethodNotAllowed: the list names the path, but not for this method (405).
	MethodNotAllowed
	// Ambiguous: an upstream could read the path as two things with different
	// prices, or in too many ways to tell (400).
	Ambiguous
)

// String is the kind in a word, for logs.
func (k Kind) String() string {
	names := [...]string{"undecided", "free", "priced", "refused", "method_not_allowed", "ambiguous"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return names[k]
}

// Line is one line of the price list.
type Line struct {
	// Kind is Priced or Free.
	Kind Kind
	// Methods the line is for, in capitals. Empty means all. GET includes HEAD.
	Methods []string
	// Patterns are the paths: exact (`/x`), a prefix (`/x/*`), a suffix
	// (`*.pdf`), a glob, or everything (`/*`).
	Patterns []string
	// Matcher narrows the paths. Nil means all requests. It must not look at
	// the path, because it knows one reading of it only.
	Matcher func(*http.Request) (bool, error)
	// Surely, if not nil, says whether the matcher matches in every reading of the
	// request, such as those of its query; then Matcher says whether it does in
	// some. It is asked only after Matcher has said yes. A line that matches in
	// some readings only is joined with the less specific ones that count where it
	// does not.
	Surely func(*http.Request) (bool, error)
	// ByURL says that the matcher looks at the URL only, which tells no clients
	// apart; see Decision.Depends.
	ByURL bool
	// MatcherName names the matcher in messages. A name that begins with `@`
	// names the same matcher in every line of the list.
	MatcherName string
	// Price is the caller's number of the price. Lines with one number cost the
	// same.
	Price int
	// Where is the line as the operator wrote it, for messages.
	Where string
}

// Decision is what the list says about a request.
type Decision struct {
	// Kind says what becomes of the request.
	Kind Kind
	// Price is the number of the price, if Kind is Priced.
	Price int
	// Line is the number of the line that decided, -1 if none did.
	Line int
	// Allow is the methods that the lines for the path name, sorted, if Kind is
	// MethodNotAllowed.
	Allow []string
	// Depends says that a matcher was asked that looks at more than the URL: the
	// same URL could cost another client something else.
	Depends bool
}

// List is a price list, ready for lookups. It is never changed and safe for
// use by many requests at once.
type List struct {
	lines     []Line
	otherwise Decision
	index     index
	bare      *index                     // the same without accents, if some line has any
	respells  bool                       // ordinary paths may have other names: see names
	dearer    func(a, b int) (int, bool) // see WithDearer
	budget    int
	warnings  []string
}

// NewList reads the lines. What otherwise says is the decision for requests
// that no line names; it is Free, Priced or Refused.
//
// The most specific line wins, in whatever order the lines come:
//
//  1. an exact path;
//  2. the longest fixed beginning: a prefix, or a glob that begins like one,
//     which goes before the prefix because it covers less;
//  3. the most fixed characters: suffixes such as `*.pdf` and other globs;
//  4. `/*`.
//
// Then a line with a matcher goes before one without, and one with methods
// before one without. Two lines that are equal in all of this, can match one
// request and differ in price are an error, and so is a line that can never
// count, because others always go before it. Whether two different matchers can
// match one request is known only when it comes: see Decide.
func NewList(lines []Line, otherwise Decision) (*List, error) {
	switch otherwise.Kind {
	case Free, Priced, Refused:
	default:
		return nil, errors.New("what no line names must be free, priced or refused; say which")
	}
	otherwise.Line, otherwise.Allow = -1, nil
	if otherwise.Kind != Priced {
		otherwise.Price = 0
	}
	l := &List{lines: slices.Clone(lines), otherwise: otherwise}
	var entries []entry
	for i := range l.lines {
		line := &l.lines[i]
		if err := checkLine(line); err != nil {
			return nil, fmt.Errorf("%s: %w", where(line), err)
		}
		for _, s := range line.Patterns {
			p, err := parsePattern(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where(line), err)
			}
			entries = append(entries, newEntry(p, line, i))
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return compareRank(a.rank, b.rank) })
	l.index = newIndex(entries, l.lines)
	l.bare = newBareIndex(entries, l.lines)
	l.respells = l.bare != nil || l.index.names.hasNumbers()
	l.budget = budget
	for i := range l.index.loose {
		// Every request pays for these, and one that spends as much on them as
		// many others do is refused. No request can make an operator's long list
		// too dear for ordinary ones.
		if g := &l.index.loose[i].pattern.glob; g.inside != "" {
			l.budget += insideBudget
		} else {
			l.budget += looseBudget
		}
	}
	l.budget += bits.OnesCount8(uint8(l.index.ended)) * endingBudget
	if err := l.checkConflicts(); err != nil {
		return nil, err
	}
	if err := l.checkDead(new(comparisons)); err != nil {
		return nil, err
	}
	l.warn(entries, new(comparisons))
	return l, nil
}

// What each pattern that must be matched with every path adds to the budget: about
// twenty times what an ordinary path takes of it.
const (
	insideBudget = 256
	looseBudget  = 20 * missCost
	// endingBudget is for each ending with which every path is looked up once more.
	endingBudget = 4 << 10
)

// checkLine checks what one line can get wrong, apart from its patterns.
func checkLine(line *Line) error {
	if line.Kind != Priced && line.Kind != Free {
		return fmt.Errorf("a line is priced or free, not %s; write `price` or `free`", line.Kind)
	}
	if len(line.Patterns) == 0 {
		return errors.New("names no path; write one, or /* for all")
	}
	for _, m := range line.Methods {
		if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "" {
			return fmt.Errorf("method %.80q is not all capitals; write one such as GET", m)
		}
	}
	return nil
}

// where names a line in a message.
func where(line *Line) string {
	if line.Where != "" {
		return "`" + line.Where + "`"
	}
	return fmt.Sprintf("the line for %s", strings.Join(line.Patterns, " "))
}

// allows reports whether the line is for the method.
func (line *Line) allows(method string) bool {
	if len(line.Methods) == 0 {
		return true
	}
	for _, m := range line.Methods {
		if m == method || m == http.MethodGet && method == http.MethodHead {
			return true
		}
	}
	return false
}

// sharesMethod reports whether some request could satisfy the methods of both.
func (line *Line) sharesMethod(other *Line) bool {
	if len(line.Methods) == 0 || len(other.Methods) == 0 {
		return true
	}
	return slices.ContainsFunc(line.Methods, other.allows) ||
		slices.ContainsFunc(other.Methods, line.allows)
}

// costsLike reports whether both lines say the same.
func (line *Line) costsLike(other *Line) bool {
	return line.Kind == other.Kind && (line.Kind == Free || line.Price == other.Price)
}
