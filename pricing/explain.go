package pricing

import (
	"net/http"
	"slices"
)

// Standing is what became of a line that names the path of a request.
type Standing struct {
	// Line is the number of the line.
	Line int
	// Decides says that the request gets what the line says.
	Decides bool
	// Why says in words why it does, or does not.
	Why string
}

// Explain says of every line that names the path of a request, in some reading, whether it
// decides, and why. Decide asks a list about the request, as the caller does for his decision;
// it is asked about many small lists, which takes long.
func (l *List) Explain(decide func(*List) (Decision, error)) (Decision, []Standing, error) {
	decision, err := decide(l)
	if err != nil {
		return decision, nil, err
	}
	var standings []Standing
	for i := range l.lines {
		bare := l.lines[i]
		bare.Kind, bare.Methods, bare.Matcher, bare.Surely = Priced, nil, nil, nil
		named, err := decide(alone(bare))
		if err != nil {
			return decision, nil, err
		}
		if named.Kind != Priced {
			continue
		}
		s := Standing{Line: i, Decides: i == decision.Line}
		if s.Why, err = l.why(i, decision, decide); err != nil {
			return decision, nil, err
		}
		standings = append(standings, s)
	}
	return decision, standings, nil
}

// alone is a list of one line.
func alone(line Line) *List {
	l, err := NewList([]Line{line}, Decision{Kind: Free})
	if err != nil {
		return &List{otherwise: Decision{Kind: Free, Line: -1}} // it stands in a list, so there is no error
	}
	return l
}

// why says why a line that names the path decides, or does not.
func (l *List) why(i int, decision Decision, decide func(*List) (Decision, error)) (string, error) {
	line := l.lines[i]
	if i == decision.Line {
		return "it is the most specific line for this request", nil
	}
	unmatched := line
	unmatched.Kind, unmatched.Matcher, unmatched.Surely = Priced, nil, nil
	allowed, err := decide(alone(unmatched))
	if err != nil {
		return "", err
	}
	if allowed.Kind != Priced {
		return "it is for other methods", nil
	}
	whole := line
	whole.Kind = Priced
	matched, err := decide(alone(whole))
	switch {
	case err != nil:
		return "", err
	case matched.Kind != Priced:
		return "its matcher does not match", nil
	case line.Surely != nil && line.Kind == Free:
		dear := alone(line)
		dear.otherwise = Decision{Kind: Priced, Line: -1}
		if sure, err := decide(dear); err != nil || sure.Kind != Free {
			return "its matcher does not match in every reading of the request", err
		}
	}
	if decision.Line < 0 {
		return "it is one of several that could count", nil
	}
	return beaten(line, l.lines[decision.Line], decide)
}

// beaten says why one of two lines goes before the other, where both match.
func beaten(line, by Line, decide func(*List) (Decision, error)) (string, error) {
	mine, err := bestOf(line, decide)
	if err != nil {
		return "", err
	}
	other, err := bestOf(by, decide)
	switch {
	case err != nil:
		return "", err
	case compareRank(other, mine) < 0:
		return "its path is less specific", nil
	case by.Matcher != nil && line.Matcher == nil:
		return "a line with a matcher that matches goes before it", nil
	case len(by.Methods) > 0 && len(line.Methods) == 0:
		return "a line that names the method goes before it", nil
	case line.Kind == Free:
		return "the request costs in another reading of it", nil
	}
	return "of two that count the dearer one holds", nil
}

// bestOf is the rank of the most specific path of a line that names a request.
func bestOf(line Line, decide func(*List) (Decision, error)) (rank, error) {
	var best []rank
	for _, s := range line.Patterns {
		bare := Line{Kind: Priced, Patterns: []string{s}}
		named, err := decide(alone(bare))
		if err != nil {
			return rank{}, err
		}
		if p, err := parsePattern(s); err == nil && named.Kind == Priced {
			best = append(best, newEntry(p, &bare, 0).rank)
		}
	}
	if len(best) == 0 {
		return rank{class: rankAll}, nil
	}
	return slices.MinFunc(best, compareRank), nil
}

// ClosedTo lists the lines with a price by which a path can be reached with their methods and
// not with another one, which gets 405 whatever the matchers say. It tries a path for each pattern.
func (l *List) ClosedTo(method string) (lines []int) {
	open := *l
	open.lines = slices.Clone(l.lines)
	for i := range open.lines {
		open.lines[i].Matcher, open.lines[i].Surely = nil, nil
	}
	for i := range l.lines {
		line := &l.lines[i]
		if line.Kind != Priced || line.allows(method) {
			continue
		}
		if slices.ContainsFunc(line.Patterns, func(pattern string) bool {
			path, ok := Example(pattern)
			if !ok {
				return false
			}
			decision, err := open.Decide(new(http.Request), method, path)
			return err == nil && decision.Kind == MethodNotAllowed
		}) {
			lines = append(lines, i)
		}
	}
	return lines
}
