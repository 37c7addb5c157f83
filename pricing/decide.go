package pricing

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

var errNoPath = errors.New("no path to decide about")

// Decide says what a request costs. The paths are its path as it came, in its
// percent-encoding, and as it was rewritten; a query is ignored. The method is
// compared as it is: `get` is not GET.
//
// Every reading of every path is looked up on its own. Over all of them,
// refused beats ambiguous beats priced beats a method that is not allowed beats
// free, and two different prices are ambiguous: whichever reading the upstream
// takes, nothing dearer than the decision can be had.
//
// For one reading the most specific line decides whose matcher and methods
// match; see NewList. Where two lines with different matchers are equally
// specific and both match, the same rule joins them, but that the dearer of two
// prices is taken; see WithDearer. If only the methods of the
// lines did not match, the decision is MethodNotAllowed.
//
// With an error of a matcher comes an undecided Decision.
func (l *List) Decide(r *http.Request, method string, paths ...string) (Decision, error) {
	return l.decide(&request{list: l, r: r, method: method}, paths)
}

// DecideAny says what a request costs that an upstream could read with any of
// several methods, one at least.
func (l *List) DecideAny(r *http.Request, methods []string, paths ...string) (Decision, error) {
	return l.decide(&request{list: l, r: r, method: methods[0], more: methods[1:]}, paths)
}

func (l *List) decide(q *request, paths []string) (Decision, error) {
	var joined Decision
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			continue
		}
		path, _, _ = strings.Cut(path, "?")
		if isPlain(path) {
			var buf [256]byte
			d, err := q.decide(foldShort(&buf, path))
			if err != nil {
				return Decision{Line: -1}, err
			}
			joined = Join(joined, d)
			continue
		}
		readings, ok := Readings(path)
		if !ok {
			joined = Join(joined, Decision{Kind: Ambiguous, Line: -1})
			continue
		}
		for _, reading := range readings {
			d, err := q.decide(fold(reading))
			if err != nil {
				return Decision{Line: -1}, err
			}
			joined = Join(joined, d)
		}
	}
	if joined.Kind == Undecided {
		return Decision{Line: -1}, errNoPath
	}
	joined.Depends = len(q.asked) > 0
	return joined, nil
}

// Prices returns the numbers of all prices that some paths have in some reading,
// whatever the method and whatever the matchers say.
func (l *List) Prices(paths ...string) []int {
	var prices []int
	add := func(price int) {
		if !slices.Contains(prices, price) {
			prices = append(prices, price)
		}
	}
	if l.otherwise.Kind == Priced {
		add(l.otherwise.Price)
	}
	for _, path := range paths {
		readings, _ := Readings(path)
		for _, reading := range readings {
			reading = fold(reading)
			l.index.lists(reading, func(entries []entry) bool {
				for i := range entries {
					if line := &l.lines[entries[i].line]; line.Kind == Priced && entries[i].covers(reading) {
						add(line.Price)
					}
				}
				return true
			})
		}
	}
	return prices
}

// strength orders the kinds: the stronger wins over all readings of a path.
var strength = [...]int{
	Undecided:        0,
	Free:             1,
	MethodNotAllowed: 2,
	Priced:           3,
	Ambiguous:        4,
	Refused:          5,
}

// Join makes one decision of two readings of a request, by the rules of Decide.
func Join(a, b Decision) Decision {
	a.Depends = a.Depends || b.Depends
	b.Depends = a.Depends
	switch {
	case strength[a.Kind] < strength[b.Kind]:
		return b
	case a.Kind != b.Kind:
		return a
	case a.Kind == Priced && a.Price != b.Price:
		return Decision{Kind: Ambiguous, Line: -1}
	case a.Kind == MethodNotAllowed:
		a.Allow = append(slices.Clone(a.Allow), b.Allow...)
		slices.Sort(a.Allow)
		a.Allow = slices.Compact(a.Allow)
	}
	return a
}

// request is one call of DecideAny.
type request struct {
	list   *List
	r      *http.Request
	method string
	more   []string // methods
	// asked remembers what matchers said: their answer cannot depend on the
	// reading, and they may be slow.
	asked map[int]bool
}

// decide looks one folded reading up, with every method.
func (q *request) decide(path string) (Decision, error) {
	joined, err := q.decideOne(q.method, path)
	for _, method := range q.more {
		var d Decision
		if err == nil {
			d, err = q.decideOne(method, path)
			joined = Join(joined, d)
		}
	}
	return joined, err
}

func (q *request) decideOne(method, path string) (Decision, error) {
	var found Decision
	var err error
	otherMethods, sure := false, false
	q.list.index.lists(path, func(entries []entry) bool {
		for i := range entries {
			e := &entries[i]
			if sure && e.rank != entries[i-1].rank {
				return false // less specific than what was found
			}
			if !e.covers(path) {
				continue
			}
			line := &q.list.lines[e.line]
			if !line.allows(method) {
				otherMethods = true
				continue
			}
			var ok bool
			if ok, err = q.ask(e.line); err != nil {
				return false
			}
			if ok {
				found = q.list.join(found, Decision{Kind: line.Kind, Price: line.price(), Line: e.line})
				if line.Surely == nil {
					sure = true
				} else if ok, err = line.Surely(q.r); err != nil {
					return false
				} else if ok {
					sure = true
				}
			}
		}
		return !sure
	})
	switch {
	case err != nil || sure:
		return found, err
	case otherMethods:
		var other Decision
		other, err = q.otherMethods(method, path)
		return q.list.join(found, other), err
	default:
		return q.list.join(found, q.list.otherwise), nil
	}
}

// otherMethods decides where no line is for the method: which methods the lines
// for the path name, if their matchers match.
func (q *request) otherMethods(method, path string) (Decision, error) {
	found := Decision{Kind: MethodNotAllowed, Line: -1}
	var err error
	q.list.index.lists(path, func(entries []entry) bool {
		for i := range entries {
			e := &entries[i]
			line := &q.list.lines[e.line]
			if !e.covers(path) || line.allows(method) {
				continue
			}
			var ok bool
			if ok, err = q.ask(e.line); err != nil {
				return false
			}
			if !ok {
				continue
			}
			found.Allow = append(found.Allow, line.Methods...)
			if slices.Contains(line.Methods, http.MethodGet) {
				found.Allow = append(found.Allow, http.MethodHead)
			}
		}
		return true
	})
	if err != nil {
		return Decision{}, err
	}
	if len(found.Allow) == 0 {
		return q.list.otherwise, nil
	}
	slices.Sort(found.Allow)
	found.Allow = slices.Compact(found.Allow)
	return found, nil
}

// ask runs the matcher of a line, once for each request.
func (q *request) ask(number int) (bool, error) {
	matcher := q.list.lines[number].Matcher
	if matcher == nil {
		return true, nil
	}
	if answer, ok := q.asked[number]; ok {
		return answer, nil
	}
	answer, err := matcher(q.r)
	if err != nil {
		return false, fmt.Errorf("matcher of %s: %w", where(&q.list.lines[number]), err)
	}
	if q.asked == nil {
		q.asked = make(map[int]bool)
	}
	q.asked[number] = answer
	return answer, nil
}

// covers reports whether the pattern matches a path for which the index found
// the entry.
func (e *entry) covers(path string) bool {
	return e.pattern.shape != shapeGlob || e.pattern.matches(path)
}

// price is the caller's number, or nothing for what is free.
func (line *Line) price() int {
	if line.Kind != Priced {
		return 0
	}
	return line.Price
}
