package pricing

import (
	"fmt"
	"strings"
)

// checkConflicts refuses two lines of one rank that can match one request and
// differ in price: whichever came first would decide, and the operator would
// find out from the accounts. Of several such pairs it names the first, so that
// the message does not depend on the order of a map.
func (l *List) checkConflicts() error {
	var worst [2]int
	found := false
	check := func(list []entry) {
		for i := range list {
			for j := i + 1; j < len(list) && list[j].rank == list[i].rank; j++ {
				pair := [2]int{min(list[i].line, list[j].line), max(list[i].line, list[j].line)}
				if found && !before(pair, worst) {
					continue
				}
				if l.conflict(&list[i], &list[j]) {
					found, worst = true, pair
				}
			}
		}
	}
	for _, lists := range []map[string][]entry{l.index.exact, l.index.below, l.index.begins} {
		for _, list := range lists {
			check(list)
		}
	}
	check(l.index.loose)
	check(l.index.all)
	if !found {
		return nil
	}
	return fmt.Errorf("%s and %s can match one request, are equally specific and differ in price; "+
		"give them one price, make the path of one longer or exact, or narrow one with a method or a matcher",
		where(&l.lines[worst[0]]), where(&l.lines[worst[1]]))
}

func before(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

// conflict reports whether two entries of one rank make the list depend on its
// order.
func (l *List) conflict(a, b *entry) bool {
	first, second := &l.lines[a.line], &l.lines[b.line]
	return !first.costsLike(second) &&
		first.sharesMethod(second) &&
		sameMatcher(first, second) &&
		a.pattern.overlap(&b.pattern)
}

// sameMatcher reports whether both lines surely match the same requests, as far
// as their matchers go. Functions cannot be compared, so only a name tells.
// Lines of one rank both have a matcher or both have none.
func sameMatcher(a, b *Line) bool {
	if a.Matcher == nil || b.Matcher == nil {
		return a.Matcher == nil && b.Matcher == nil
	}
	return strings.HasPrefix(a.MatcherName, "@") && a.MatcherName == b.MatcherName
}
