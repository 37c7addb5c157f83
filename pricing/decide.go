package pricing

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
)

var (
	errNoPath   = errors.New("no path to decide about")
	errNoMethod = errors.New("no method to decide about")
)

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
// specific and both match, the same rule joins them. If only the methods of the
// lines did not match, the decision is MethodNotAllowed.
//
// With an error of a matcher comes an undecided Decision.
func (l *List) Decide(r *http.Request, method string, paths ...string) (Decision, error) {
	var verdicts [1]verdict
	var joined [1]Decision
	q := request{list: l, r: r, method: method}
	if err := q.decideAll(paths, verdicts[:], joined[:]); err != nil {
		return Decision{Line: -1}, err
	}
	return joined[0], nil
}

// DecideAny says what a request costs that an upstream could read with any of
// several methods, one at least.
func (l *List) DecideAny(r *http.Request, methods []string, paths ...string) (Decision, error) {
	decisions, err := l.DecideEach(r, methods, paths...)
	if err != nil {
		return Decision{Line: -1}, err
	}
	var joined Decision
	for _, d := range decisions {
		joined = Join(joined, d)
	}
	return joined, nil
}

// DecideEach says what a request costs with each of several methods, one at
// least, for the work of one.
func (l *List) DecideEach(r *http.Request, methods []string, paths ...string) ([]Decision, error) {
	if len(methods) == 0 {
		return nil, errNoMethod
	}
	q := request{list: l, r: r, method: methods[0], more: methods[1:]}
	joined := make([]Decision, len(methods))
	if err := q.decideAll(paths, make([]verdict, len(methods)), joined); err != nil {
		return nil, err
	}
	return joined, nil
}

// budget bounds the work for a short request, in bytes that are looked at: about two
// nanoseconds each. Above it the request is ambiguous. An ordinary one spends a
// few hundred. Every byte of the paths adds budgetPerByte, up to budgetLength bytes,
// since long ones are honest too: the work for a request is in proportion to its
// length, and ends with about half a millisecond.
const (
	budget        = 24 << 10
	budgetPerByte = 16
	budgetLength  = 5 << 10
)

// decideAll fills joined, by method, with the help of room for the verdicts on
// one reading. Neither is part of the request, which would move them to the heap.
func (q *request) decideAll(paths []string, verdicts []verdict, joined []Decision) error {
	if len(paths) == 0 {
		return errNoPath
	}
	q.in = &q.list.index
	q.budget = q.list.budget + budgetPerByte*min(lengthOf(paths), budgetLength)
	ok, err := q.decidePlain(paths, verdicts, joined)
	if err == nil && !ok {
		err = q.decideReadings(paths, verdicts, joined)
	}
	if err != nil {
		return err
	}
	for i := range joined {
		d := &joined[i]
		switch {
		case q.over():
			*d = Decision{Kind: Ambiguous, Line: -1}
		case d.Kind == MethodNotAllowed:
			d.Allow = q.allowed()
		}
		d.Depends = q.depends
	}
	return nil
}

// lengthOf is how long the paths are together, each counted once.
func lengthOf(paths []string) (n int) {
	for i, path := range paths {
		if !slices.Contains(paths[:i], path) {
			path, _, _ = strings.Cut(path, "?")
			n += len(path)
		}
	}
	return n
}

// decidePlain decides about paths that have one reading each. It says no where
// others are among them.
func (q *request) decidePlain(paths []string, verdicts []verdict, joined []Decision) (ok bool, err error) {
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			continue
		}
		path, _, _ = strings.Cut(path, "?")
		if q.spent += len(path); q.over() {
			return true, nil
		}
		if q.simple = isSimple(path); !q.simple && featuresOf(path) != 0 {
			clear(joined)
			return false, nil
		}
		if len(paths) == 1 && len(path) <= maxOrdinary {
			q.budget = math.MaxInt / 2 // how many patterns there are is the operator's affair
		}
		var buf [256]byte
		if err := q.decideOne(foldShort(&buf, path), verdicts); err != nil {
			return false, err
		}
		join(joined, verdicts)
	}
	return true, nil
}

// maxOrdinary is how long a path may be, in bytes, that is decided however many
// patterns the operator has.
const maxOrdinary = 256

// join adds the verdicts on one reading to the decisions.
func join(joined []Decision, verdicts []verdict) {
	for i := range joined {
		joined[i] = Join(joined[i], verdicts[i].found)
	}
}

// over says whether more was spent than there is.
func (q *request) over() bool { return q.spent > q.budget }

// decideReadings decides about paths of which one at least has several readings.
func (q *request) decideReadings(paths []string, verdicts []verdict, joined []Decision) error {
	spent := q.spent // not q's own, which must not move to the heap
	c := closure{spent: &spent, budget: q.budget}
	from := make([]string, len(paths))
	for i, path := range paths {
		from[i], _, _ = strings.Cut(path, "?")
	}
	q.simple = false
	readings, ok := c.close(from)
	if q.spent = spent; !ok {
		q.spent = q.budget + 1
		return nil
	}
	var done []string // folded ones that are not ASCII
	for _, reading := range readings {
		folded, work := foldLook(reading)
		if q.spent += len(reading) + work; q.over() {
			return nil
		}
		if work > 0 {
			if contains(done, folded) {
				continue // it differs in letter case, or in how accents are written
			}
			done = append(done, folded)
		}
		if err := q.decideOne(folded, verdicts); err != nil {
			return err
		}
		join(joined, verdicts)
	}
	return nil
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
			l.addPrices(&l.index, reading, add)
			others, _ := l.respell(reading, new(int))
			for _, other := range others {
				l.addPrices(other.in, other.path, add)
			}
		}
	}
	return prices
}

// addPrices calls add with the price of every line for a folded path, or for what a server
// may serve for it.
func (l *List) addPrices(x *index, path string, add func(int)) {
	l.addPricesOf(x, path, add)
	if dir, _ := x.folder(path); dir != "" {
		l.addPricesOf(x, dir, add)
	}
	for at, kind := x.program(path); at > 0; at, kind = x.program(path[:at]) {
		if kind != behindIndex {
			l.addPricesOf(x, path[:at], add)
		}
		if dir, _ := x.folder(path[:at]); dir != "" {
			l.addPricesOf(x, dir, add)
		}
	}
	for i, which := 0, x.completions(path); which != 0; i, which = i+1, which>>1 {
		if which&1 != 0 {
			l.addPricesOf(x, trimSlash(path)+completions[i], add)
		}
	}
	for _, d := range pagesOf(path) { // some more, if they lie beside a page
		for page := range x.files(d.page) {
			l.addPricesOf(x, page, add)
		}
	}
	for _, at := range x.formats(path) {
		if at > 0 {
			l.addPricesOf(x, path[:at], add)
		}
	}
}

// addPricesOf calls add with the price of every line for a folded path.
func (l *List) addPricesOf(x *index, path string, add func(int)) {
	x.lists(path, func(entries []entry) bool {
		for i := range entries {
			e := &entries[i]
			if line := &l.lines[e.line]; line.Kind == Priced && (e.pattern.shape != shapeGlob || e.pattern.matches(path)) {
				add(line.Price)
			}
		}
		return true
	})
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

// request is one request that is decided about, with each of its methods.
type request struct {
	list *List
	// in is the index in which paths are looked up: that of the list, or that without
	// accents.
	in     *index
	r      *http.Request
	method string
	more   []string // methods
	spent  int      // of the budget
	budget int
	// asked remembers what matchers said: their answer cannot depend on the
	// reading, and they may be slow.
	asked map[int]bool
	// sure remembers the same of what they said of every reading of the request.
	sure map[int]bool
	// depends says that one of them looks at more than the URL.
	depends bool
	// named are the lines for one reading that are for other methods than one of
	// these, and allow those of all readings that have no line for their method.
	named, allow []int
	// as says of which kind the name is that is looked up for a path.
	as otherName
	// simple says that the path has nothing odd: see isSimple.
	simple bool
}

// otherName is a set of what a name is that is looked up for a path beside its own.
type otherName uint8

const (
	// asFormat: it is without its ending, see lookUpFormats.
	asFormat otherName = 1 << iota
	// asFolder: it has an ending, and the path is a folder's, see lookUpCompleted.
	asFolder
	// asAsset: the path is of what pages are made with, or data of one, which is of no
	// glob for folders: `/posts/style.css` is no format of `/posts/style/`, and
	// `/posts/__data.json` is data of `/posts`.
	asAsset
	// asPage: it is the page beside which its data lie, see dataOf.
	asPage
	// asPageOfText: that, and the data have an ending that much else has.
	asPageOfText
)

// verdict is what the list says of one reading with one method.
type verdict struct {
	found Decision
	// first and last are the most and the least specific of the lines that decided.
	first, last *entry
	// head is how long a fixed beginning the last of them has.
	head int
	// apart says that one of them is for the name that was looked up, and not for the
	// path that has the name: see lookUpAs.
	apart bool
	// sure says that the lines found so far count in every reading of the query.
	sure bool
	// decided says that no less specific line counts.
	decided bool
	// others says that there are lines for other methods.
	others bool
}

// nth is one of the methods.
func (q *request) nth(i int) string {
	if i == 0 {
		return q.method
	}
	return q.more[i-1]
}

// decideName looks one folded path up, with every method.
func (q *request) decideName(path string, verdicts []verdict) error {
	if err := q.lookUp(path, "", verdicts); err != nil {
		return err
	}
	if err := q.lookUpFormats(path, verdicts); err != nil {
		return err
	}
	if err := q.lookUpCompleted(path, verdicts); err != nil {
		return err
	}
	if err := q.lookUpData(path, verdicts); err != nil {
		return err
	}
	if err := q.lookUpFolder(path, path, verdicts); err != nil {
		return err
	}
	return q.lookUpScripts(path, verdicts)
}

// lookUpFormats asks also for the path without the ending of its name: Rails serves the
// page of `/quote` as `/quote.json` too, and under any other ending, and so do older
// Spring and what else has routes with a format. A line that names the ending says
// otherwise: see entry.goesBefore.
func (q *request) lookUpFormats(path string, verdicts []verdict) error {
	for _, at := range q.in.formats(path) {
		if at == 0 || !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.sure || v.head <= at }) {
			continue
		}
		q.as = asFormat
		if isAsset(path) || isData(path) {
			q.as |= asAsset
		}
		err := q.lookUpAs(path[:at], path, verdicts, func(last, first *entry) bool { return last.goesBefore(first, at) })
		if q.as = 0; err != nil {
			return err
		}
	}
	return nil
}

// lookUpCompleted asks also for the path with an ending that servers add where there is no
// file of that name: many that serve files, and nginx as it is often set up, answer
// `/report` with `/report.html`. A line that names the path says otherwise.
func (q *request) lookUpCompleted(path string, verdicts []verdict) error {
	x := q.in
	if len(x.bare) == 0 && x.ended == 0 {
		return nil
	}
	which := x.completions(path)
	for i := 0; which != 0; i, which = i+1, which>>1 {
		if which&1 == 0 || q.over() {
			continue
		}
		bare := trimSlash(path)
		if len(bare) != len(path) {
			q.as = asFolder
		}
		err := q.lookUpAs(bare+completions[i], path, verdicts, func(last, first *entry) bool { return last.goesBefore(first, len(path)) })
		if q.as = 0; err != nil {
			return err
		}
	}
	return nil
}

// lookUpData asks also for the page whose data the path is: see pagesOf. A line for both is
// not enough to leave it at that: `free /_next/*` beside `price /*` means pictures and code.
func (q *request) lookUpData(path string, verdicts []verdict) error {
	if !mayBeData(path) {
		return nil
	}
	// Iterators keep what they yield on the heap: the copy, and not the path of every request.
	kept := strings.Clone(path)
	for _, d := range pagesOf(kept) {
		nameOf := ""
		if d.as != 0 {
			nameOf = kept
		}
		for page := range q.in.files(d.page) {
			q.as = d.as
			err := q.lookUpAs(page, nameOf, verdicts, d.goesBefore)
			if q.as = 0; err != nil {
				return err
			}
		}
	}
	return nil
}

// lookUpAs asks what is said of another name of a path, and joins that, unless each line
// that counts for the name is one for the path too, or those for the path go before. It
// asks the former only if it is told the path.
func (q *request) lookUpAs(name, path string, verdicts []verdict, before func(last, first *entry) bool) error {
	q.spent += len(name)
	var room [1]verdict // as most requests have one method, and should cost no memory
	others := room[:]
	if len(verdicts) > 1 {
		others = make([]verdict, len(verdicts))
	}
	if err := q.lookUp(name, path, others); err != nil {
		return err
	}
	for i := range verdicts {
		switch v, other := &verdicts[i], &others[i]; {
		case other.first == nil && path != "":
			// No line is for the name, but perhaps one is for other methods.
			if v.first == nil && other.found.Kind == MethodNotAllowed {
				v.found = Join(v.found, other.found)
			}
		case !other.apart && path != "", v.sure && before(v.last, other.first):
		default:
			// Of two prices the dearer one, rather than neither.
			v.found = q.list.join(v.found, other.found)
		}
	}
	return nil
}

// goesBefore says whether a line for a path counts before one for another name of it, that
// without its ending or with another one. It does where it has a fixed beginning that is
// longer than what the names have in common (`/quote.*` beside `/quote`, where the ending
// begins), or is the more specific of the two (`/*/quote.css` beside `/*/quote`). `*.css` is
// less specific than `/quote`, whose page a server may also have as a style sheet.
func (e *entry) goesBefore(other *entry, common int) bool {
	return e.fixed() > common || e.moreSpecific(other)
}

// moreSpecific compares the paths of two lines, and neither matchers nor methods.
func (e *entry) moreSpecific(other *entry) bool {
	a, b := e.rank, other.rank
	a.tier, b.tier = 0, 0
	return compareRank(a, b) < 0
}

// lookUpFolder asks also for the folder whose index file the path, or the program at its
// beginning, may be: a server that has a program or a page for `/` has it at `/index.php`
// too, with whatever query the price of `/` is for. Who wants to say otherwise writes a
// line for the file.
func (q *request) lookUpFolder(path, file string, verdicts []verdict) error {
	dir, own := q.in.folder(file)
	at := len(trimSlash(dir))
	if at == 0 || own {
		// Of `/` and `/*` with two prices the dearer one, rather than neither.
		return q.lookUpToo(path, at, verdicts, q.list.join)
	}
	if isAsset(file) {
		q.as = asAsset
	}
	err := q.lookUpAs(dir, path, verdicts, func(last, first *entry) bool { return last.goesBefore(first, at) })
	q.as = 0
	return err
}

// lookUpToo asks also for a beginning of the path, of a length, and joins what is said
// of that where no more specific line was found, or none that surely counts. A length of 0
// is none.
func (q *request) lookUpToo(path string, at int, verdicts []verdict, join func(a, b Decision) Decision) error {
	if at == 0 || !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.sure || v.head <= at }) {
		return nil
	}
	q.spent += at
	other := make([]verdict, len(verdicts))
	if err := q.lookUp(path[:at], "", other); err != nil {
		return err
	}
	if err := q.lookUpFormats(path[:at], other); err != nil {
		return err
	}
	for i := range verdicts {
		switch v := &verdicts[i]; {
		case v.head <= at:
			v.found = join(v.found, other[i].found)
		case !v.sure:
			// Which of the two counts, the request does not say: the dearer one.
			v.found = q.list.join(v.found, other[i].found)
		}
	}
	return nil
}

// lookUpScripts asks also for the scripts that may run with the rest of the path, and for
// the files that a server may take for such: whatever follows the name of a program, a
// server may run the program. Who wants to say otherwise of what follows writes a line for
// it.
func (q *request) lookUpScripts(path string, verdicts []verdict) error {
	x := q.in
	for at, kind := x.program(path); at > 0 && !q.over(); at, kind = x.program(path[:at]) {
		q.spent += at
		var err error
		switch kind {
		case behindScript:
			err = q.lookUpToo(path, at, verdicts, Join)
		case behindFile:
			err = q.lookUpAs(path[:at], path, verdicts, func(last, first *entry) bool { return last.goesBefore(first, at) })
		default:
		}
		if err != nil {
			return err
		}
		if err := q.lookUpFolder(path, path[:at], verdicts); err != nil {
			return err
		}
	}
	return nil
}

// lookUp finds out what the list says of one folded path, with every method:
// the lines that cover it are found once for all of them. If it is another name of a
// path, it also finds out whether they are for both.
func (q *request) lookUp(path, nameOf string, verdicts []verdict) error {
	clear(verdicts)
	q.named = q.named[:0]
	found := false // since the rank before
	open := len(verdicts)
	var err error
	probes := q.in.lists(path, func(entries []entry) bool {
		for i := range entries {
			e := &entries[i]
			if found && e.rank != entries[i-1].rank {
				// What follows is less specific.
				found = false
				if open = decided(verdicts); open == 0 {
					return false
				}
			}
			if !q.covers(e, path) {
				continue
			}
			var decides bool
			if decides, err = q.apply(e, nameOf, verdicts); err != nil {
				return false
			}
			found = found || decides
		}
		if found {
			found = false
			open = decided(verdicts)
		}
		return open > 0 && !q.over()
	})
	q.spent += lookUpCost + probeCost*probes + methodCost*(len(verdicts)-1)
	if err != nil {
		return err
	}
	for i := range verdicts {
		v := &verdicts[i]
		if v.sure {
			continue
		}
		rest := q.list.otherwise
		if v.others {
			if rest, err = q.otherMethods(q.nth(i)); err != nil {
				return err
			}
		}
		v.found = q.list.join(v.found, rest)
	}
	return nil
}

// decided closes the verdicts that have found something, and says how many are
// open.
func decided(verdicts []verdict) (open int) {
	for i := range verdicts {
		v := &verdicts[i]
		if v.decided = v.sure; !v.decided {
			open++
		}
	}
	return open
}

// apply lets a line that covers a path decide for the methods that it is for.
func (q *request) apply(e *entry, nameOf string, verdicts []verdict) (found bool, err error) {
	line := &q.list.lines[e.line]
	named := false
	for i := range verdicts {
		v := &verdicts[i]
		if v.decided {
			continue
		}
		if !line.allows(q.nth(i)) {
			v.others, named = true, true
			continue
		}
		ok, err := q.ask(e.line)
		if err != nil {
			return false, err
		}
		if ok {
			found = true
			v.found = q.list.join(v.found, Decision{Kind: line.Kind, Price: line.price(), Line: e.line})
			v.head, v.last = e.fixed(), e
			v.apart = v.apart || nameOf != "" && !q.matches(e, nameOf)
			if v.first == nil {
				v.first = e
			}
			sure := true
			if line.Surely != nil && !v.sure {
				if sure, err = q.askSurely(e.line); err != nil {
					return false, err
				}
			}
			v.sure = v.sure || sure
		}
	}
	if named {
		q.named = append(q.named, e.line)
	}
	return found, nil
}

// otherMethods decides where no line is for the method: the request is not
// allowed if the matcher of a line for another one matches.
func (q *request) otherMethods(method string) (Decision, error) {
	found := q.list.otherwise
	for _, number := range q.named {
		if q.list.lines[number].allows(method) {
			continue // its matcher did not match
		}
		ok, err := q.ask(number)
		if err != nil {
			return Decision{}, err
		}
		if ok {
			found = Decision{Kind: MethodNotAllowed, Line: -1}
			if !slices.Contains(q.allow, number) {
				q.allow = append(q.allow, number)
			}
		}
	}
	return found, nil
}

// allowed are the methods of the lines that are for other methods than those of
// the request.
func (q *request) allowed() []string {
	var methods []string
	for _, number := range q.allow {
		line := &q.list.lines[number]
		methods = append(methods, line.Methods...)
		if slices.Contains(line.Methods, http.MethodGet) {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// ask runs the matcher of a line, once for each request.
func (q *request) ask(number int) (bool, error) {
	matcher := q.list.lines[number].Matcher
	if matcher == nil {
		return true, nil
	}
	q.depends = q.depends || !q.list.lines[number].ByURL
	return q.askOnce(&q.asked, number, matcher)
}

// askSurely asks whether the matcher of a line matches in every reading of the
// request, once for each request.
func (q *request) askSurely(number int) (bool, error) {
	return q.askOnce(&q.sure, number, q.list.lines[number].Surely)
}

// askOnce asks what nobody has asked yet. How many matchers there are is the
// operator's affair; how often their answers are looked up is the stranger's, who
// may name many paths and methods.
func (q *request) askOnce(answers *map[int]bool, number int, matcher func(*http.Request) (bool, error)) (bool, error) {
	if answer, ok := (*answers)[number]; ok {
		q.spent += answerCost
		return answer, nil
	}
	answer, err := matcher(q.r)
	if err != nil {
		return false, fmt.Errorf("matcher of %s: %w", where(&q.list.lines[number]), err)
	}
	if *answers == nil {
		*answers = make(map[int]bool)
	}
	(*answers)[number] = answer
	return answer, nil
}

// covers reports whether the pattern matches a path for which the index found
// the entry.
func (q *request) covers(e *entry, path string) bool {
	if q.as != 0 && q.as.isNoneOf(e) {
		return false
	}
	if e.pattern.shape != shapeGlob {
		return true
	}
	if q.over() {
		return false // refused anyway
	}
	ok, looked := e.pattern.globMatches(path)
	q.spent += looked
	return ok
}

// isNoneOf says that a line is for no name of this kind. A name that has an ending of its
// own covers no name that lost one, and `*.html` is for no folder, however many servers look
// for a file of that name. Nor is `*/` for files in the formats of folders, nor `*.html`
// for texts beside such files: `/robots.txt` would be one of `/robots/` and `/robots.html`.
func (as otherName) isNoneOf(e *entry) bool {
	loose, folders := e.rank.class >= rankLoose, e.pattern.folders
	return as&asFormat != 0 && (e.ends || folders && loose) ||
		as&asFolder != 0 && loose ||
		as&asAsset != 0 && folders ||
		as&asPage != 0 && !e.ends && !folders ||
		as&asPageOfText != 0 && loose
}

// matches is covers for an entry that the index found for another path.
func (q *request) matches(e *entry, path string) bool {
	if e.pattern.shape != shapeGlob {
		return e.pattern.matches(path)
	}
	return q.covers(e, path)
}

// fixed is how long a fixed beginning of the path made the index find the entry.
func (e *entry) fixed() int {
	switch e.rank.class {
	case rankExact:
		return math.MaxInt
	case rankHead:
		return len(e.pattern.head)
	default:
		return 0
	}
}

// price is the caller's number, or nothing for what is free.
func (line *Line) price() int {
	if line.Kind != Priced {
		return 0
	}
	return line.Price
}
