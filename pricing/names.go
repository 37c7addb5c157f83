package pricing

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// What answers may take a name in a path for another one: numbers have many spellings (see
// numbers.go), databases ignore accents (see bare.go), and a name may be several. tRPC
// answers `/api/trpc/hello,report` with both, and so do other interfaces that take a list,
// such as Elasticsearch. A path costs what it would under each of these names, if that is more:
// whoever means otherwise writes a line that names the path.

// names are those in the paths of the lines.
type names struct {
	// numbers are the spellings of each number in them.
	numbers map[string][]string
	// anyNumber says that there are wildcards in numbers, as in `/[1-9]` and `/1*`.
	anyNumber bool
	// words are the names without wildcards, and those before a first dot; parts are what is
	// fixed of the others. `*.pdf` and `*mid*` look at whole paths, and not at names.
	words map[string]struct{}
	parts []namePart
	// begins are the first bytes of all words, and numbersBegin those of all numbers.
	begins, numbersBegin [256]bool
}

type namePart struct {
	begin, inside, end string
	length             int // in characters, if there are only classes between the two
}

// separators stand between several names in one.
const separators = ",;|"

// note notes the names of a folded pattern.
func (n *names) note(pattern string) {
	if n.words == nil {
		n.numbers, n.words = make(map[string][]string), make(map[string]struct{})
	}
	for name := range strings.SplitSeq(pattern, "/") {
		first := strings.IndexAny(name, "*[")
		switch {
		case name == "" || name == "*":
			continue
		case first >= 0:
			last := strings.LastIndexAny(name, "*]")
			if pattern[0] == '/' {
				inside := strings.FieldsFunc(name[first:last+1], func(c rune) bool { return strings.ContainsRune("*[]", c) })
				part := namePart{begin: name[:first], end: name[last+1:]}
				switch {
				case !strings.Contains(name, "*"):
					part.length = lengthOfClasses(name)
				case len(inside) == 1 && !strings.Contains(name, "["):
					part.inside = inside[0]
				}
				n.parts = append(n.parts, part)
			}
			n.anyNumber = n.anyNumber || hasNumberGlob(name)
			continue
		}
		base, _, _ := strings.Cut(name, ".")
		for _, word := range [...]string{name, base} {
			if word == "" {
				continue
			}
			n.words[word], n.begins[word[0]] = struct{}{}, true
			if !isNumber(word) {
				continue
			}
			number := numbersIn(word).list[0]
			n.numbersBegin[number[0]] = true
			if !contains(n.numbers[number], word) {
				n.numbers[number] = append(n.numbers[number], word)
			}
		}
	}
}

// hasNumberGlob says whether a name with wildcards may be for numbers that it says in part.
func hasNumberGlob(name string) bool {
	return strings.Trim(name, "0123456789-.^[]*") == "" && strings.ContainsAny(name, "0123456789")
}

// lengthOfClasses is how many characters a name with classes has.
func lengthOfClasses(name string) (length int) {
	for name != "" {
		if name[0] == '[' {
			name = name[strings.IndexByte(name, ']'):]
		}
		_, n := utf8.DecodeRuneInString(name)
		name = name[n:]
		length++
	}
	return length
}

// hasNumbers says whether a number could be another spelling of a name.
func (n *names) hasNumbers() bool { return len(n.numbers) > 0 || n.anyNumber }

// nameLookUp is what it costs to look a name up, in bytes that are looked at.
const nameLookUp = 24

// maxRespelled is how many other names of a path are looked at.
const maxRespelled = 64

// maxNameWork bounds the work for the names of one path, in bytes that are looked at, where
// the operator's list is long.
const maxNameWork = 1 << 17

// respelled is another name of a path, and where the last part that is spelled otherwise
// ends in the path.
type respelled struct {
	path string
	end  int
	in   *index
}

// respell finds the other names of a folded path. False means that there are too many.
func (l *List) respell(path string, work *int) (all []respelled, ok bool) {
	limit := *work + maxNameWork
	in := &l.index
	if l.bare != nil {
		in = l.bare // which finds all that the other does, for a path without accents
	}
	if high := highBytes(path); high > 0 || l.bare == nil {
		if all, ok = l.index.respell(nil, path, 0, work, limit); !ok {
			return nil, false
		}
		if high == 0 {
			return all, true
		}
	}
	text, end, looked := bareLook(path)
	*work += looked
	if end == 0 && l.bare == nil {
		return all, true
	}
	// A line says otherwise that reaches beyond the name in which the last accent is.
	if end = endOfName(path, end); l.bare != nil {
		end = len(path)
	}
	texts := []string{text}
	if other, _ := bare(strings.ReplaceAll(path, "ß", "s")); other != text {
		texts = append(texts, other)
	}
	for _, text := range texts {
		all = append(all, respelled{text, end, in})
		if all, ok = in.respell(all, text, end, work, limit); !ok {
			return nil, false
		}
	}
	return all, true
}

// endOfName is where the name ends that is at a place of a path.
func endOfName(path string, at int) int {
	if slash := strings.IndexByte(path[at:], '/'); slash >= 0 {
		return at + slash
	}
	return len(path)
}

// respell adds the other names of a path of which some line of the index could be.
func (x *index) respell(all []respelled, path string, least int, work *int, limit int) ([]respelled, bool) {
	numbers := x.names.hasNumbers()
	if !numbers && !strings.ContainsAny(path, separators) {
		return all, true
	}
	var begun []respelled // with what the names so far may be instead
	done := 0             // how much of the path is in begun
	for start := 0; start < len(path); {
		end := endOfName(path, start)
		others := x.otherNames(path[start:end], numbers, work, limit)
		if *work > limit {
			return nil, false
		}
		if len(others) > 0 {
			if begun == nil {
				begun = []respelled{{}}
			}
			more := make([]respelled, 0, len(begun)*(len(others)+1))
			for _, b := range begun {
				before := b.path + path[done:start]
				more = append(more, respelled{before + path[start:end], b.end, x})
				for _, name := range others {
					more = append(more, respelled{before + name, max(end, least), x})
				}
				*work += stepCost*len(others) + len(before)*(len(others)+1)
			}
			if begun = more; len(begun)+len(all) > maxRespelled {
				return nil, false
			}
			done = end
		}
		start = end + 1
	}
	for _, b := range begun {
		if b.end > 0 {
			b.path += path[done:]
			all = append(all, b)
		}
	}
	return all, true
}

// otherNames are the other spellings of a name.
func (x *index) otherNames(name string, numbers bool, work *int, limit int) (others []string) {
	if numbers && mayBeNumber(name) {
		*work += len(name)
		others = x.names.spellings(others, name, "", work)
		if dot := strings.IndexByte(name, '.'); dot > 0 {
			others = x.names.spellings(others, name[:dot], name[dot:], work) // in a format
		}
	}
	if strings.ContainsAny(name, separators) {
		for part := range strings.FieldsFuncSeq(name, func(c rune) bool { return strings.ContainsRune(separators, c) }) {
			if *work += 4 + len(part)/2 + 2*len(x.names.parts); *work > limit {
				return nil
			}
			if x.names.begins[part[0]] {
				*work += nameLookUp
			}
			if x.names.has(part) && !contains(others, part) {
				others = append(others, part)
			}
			if numbers && mayBeNumber(part) {
				others = x.names.spellings(others, part, "", work)
			}
		}
	}
	return others
}

// has says whether some line could have a name.
func (n *names) has(name string) bool {
	if n.begins[name[0]] {
		if _, ok := n.words[name]; ok {
			return true
		}
		base, _, _ := strings.Cut(name, ".")
		if _, ok := n.words[base]; ok {
			return true
		}
	}
	return n.hasPart(name)
}

// hasPart says whether some line with a wildcard could have a name.
func (n *names) hasPart(name string) bool {
	for _, part := range n.parts {
		if part.length > 0 && utf8.RuneCountInString(name) != part.length {
			continue
		}
		if len(name) >= len(part.begin)+len(part.end) && strings.HasPrefix(name, part.begin) && strings.HasSuffix(name, part.end) && strings.Contains(name, part.inside) {
			return true
		}
	}
	return false
}

// spellings adds what the lines write for the number that a text may be, with an ending.
func (n *names) spellings(others []string, text, ending string, work *int) []string {
	add := func(name string) {
		if name != text && !contains(others, name+ending) {
			others = append(others, name+ending)
		}
	}
	if isPlainNumber(text) {
		for _, name := range n.numbers[text] {
			// `/docs/1.10` is no other name for `/docs/1.1`, and `/v/2.0` none for `/v/2`.
			if strings.IndexByte(name, '.') < 0 {
				add(name)
			}
		}
		return others
	}
	if number, ok := plainDecimal(text); ok && !n.numbersBegin[number[0]] && (!n.anyNumber || !n.hasPart(number)) {
		return others
	}
	*work += nameLookUp
	found := numbersIn(text)
	for _, number := range found.all() {
		for _, name := range n.numbers[number] {
			if text != number || strings.IndexByte(name, '.') < 0 {
				add(name)
			}
		}
		if n.anyNumber && n.hasPart(number) {
			add(number)
		}
	}
	return others
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

// hasOddName says whether a path may have other names, numbers apart: it has accents, or
// several names in one.
func hasOddName(path string) bool {
	for i := range len(path) {
		if odd[path[i]] {
			return true
		}
	}
	return false
}

var odd = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x80 || strings.IndexByte(separators, byte(c)) >= 0
	}
	return t
}()

// mayRespell says of most ordinary paths that they have no other names, and keeps nothing.
func (l *List) mayRespell(path string) bool {
	if l.bare != nil || hasOddName(path) {
		return true
	}
	for start := 0; start < len(path); {
		end := endOfName(path, start)
		if name := path[start:end]; mayBeNumber(name) {
			base, ending, _ := strings.Cut(name, ".")
			if !isPlainNumber(base) || !l.index.names.isOwn(base) || base != name && !isOnlyEnding(ending) {
				return true
			}
		}
		start = end + 1
	}
	return false
}

// isOnlyEnding says of many endings that with them a name is no number.
func isOnlyEnding(ending string) bool {
	return ending != "" && 'g' <= ending[0] && ending[0] <= 'z'
}

// isOwn says whether a number that is written plainly has no other spelling in the lines.
func (n *names) isOwn(number string) bool {
	for _, name := range n.numbers[number] {
		if name != number {
			return false
		}
	}
	return true
}

// decideOne looks one folded reading up under all its names, with every method.
func (q *request) decideOne(path string, verdicts []verdict) error {
	if err := q.decideName(path, verdicts); err != nil || !q.list.respells && (q.simple || !hasOddName(path)) || !q.list.mayRespell(path) {
		return err
	}
	// The names are kept on the heap; most paths are not.
	others, ok := q.list.respell(strings.Clone(path), &q.spent)
	if !ok {
		q.spent = q.budget + 1
	}
	for _, other := range others {
		if q.spent += stepCost + len(other.path); q.over() {
			return nil
		}
		under := make([]verdict, len(verdicts))
		q.in = other.in
		err := q.decideName(other.path, under)
		if q.in = &q.list.index; err != nil {
			return err
		}
		for i := range verdicts {
			if v := &verdicts[i]; !v.sure || v.last.fixed() <= other.end {
				// Of two prices the dearer one, rather than neither.
				v.found = q.list.join(v.found, under[i].found)
			}
		}
	}
	return nil
}
