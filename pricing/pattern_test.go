package pricing

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPatternMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern  string
		yes, not []string
	}{
		{"/x", []string{"/x", "/x/", "/X"}, []string{"/", "/xy", "/x/y", "/y/x", "/x//"}},
		{"/x/", []string{"/x", "/x/", "/X/"}, []string{"/x/y", "/xy"}},
		{"/", []string{"/"}, []string{"/x"}},
		{"/x/*", []string{"/x", "/x/", "/x/y", "/x/y/z", "/X/Y"}, []string{"/", "/xy", "/y/x"}},
		{"/blog*", []string{"/blog", "/blog/", "/blogs", "/blog/x/y", "/BLOG-2"}, []string{"/blo", "/x/blog"}},
		{"/*", []string{"/", "/x", "/x/y"}, nil},
		{"*", []string{"/", "/x", "/x/y", "*"}, nil},
		{"*.pdf", []string{"/x.pdf", "/a/b/x.PDF", "/x.pdf/", "/.pdf"}, []string{"/x.pdfs", "/x.pdf/y", "/pdf"}},
		{"*mid*", []string{"/mid", "/a/mid/b", "/amidst"}, []string{"/mi/d"}},
		{"*/x/*", []string{"/x", "/x/", "/a/x/b", "/a/x"}, []string{"/ax/b", "/a/xb"}},
		{"/a/*/b", []string{"/a/x/b", "/a/x/b/", "/A/x/B", "/a//b"}, []string{"/a/b", "/a/x/y/b", "/a/x/b/c", "/a/x/bc"}},
		{"/a/*/b/*", []string{"/a/x/b", "/a/x/b/", "/a/x/b/c", "/a/x/b/c/d"}, []string{"/a/x/bc", "/a/x/y/b", "/a/b/c"}},
		{"/a/*.txt", []string{"/a/x.txt", "/a/.txt"}, []string{"/a/b/x.txt", "/x.txt"}},
		{"/a/v*/x*", []string{"/a/v1/x", "/a/v/xyz", "/a/v1/x/"}, []string{"/a/v1/x/y", "/a/v1/2/x"}},
		{"/a[^~]c", []string{"/abc", "/a-c", "/aéc"}, []string{"/ac", "/a/c", "/abbc"}},
		{"/a[bc]d", []string{"/abd", "/acd", "/aCd"}, []string{"/add", "/ad", "/a/d"}},
		{"/a[^bc]d", []string{"/aad", "/axd"}, []string{"/abd", "/aBd", "/a/d"}},
		{"/v[0-9]/x", []string{"/v1/x"}, []string{"/va/x", "/v10/x"}},
		{"/[A-F]x", []string{"/ax", "/Fx"}, []string{"/gx"}},
		{"*[0-9].jpg", []string{"/a/1.jpg", "/10.jpg"}, []string{"/a.jpg"}},
		{"*a[^~]b*", []string{"/xaxbx/y", "/a-b"}, []string{"/a/b", "/ab"}},
		{"/*.css", []string{"/a.css"}, []string{"/x/a.css"}},
		{"/é*", []string{"/é", "/Éa", "/e\u0301x"}, []string{"/e"}},
		{"/users/*/full/", []string{"/users/7/full", "/users/7/full/"}, []string{"/users/full", "/users/7/full/x", "/users/7/fuller/"}},
		{"*x/", []string{"/x", "/a/bx/", "/a/bx"}, []string{"/x/a"}},
		{"/v[0-9]/", []string{"/v1", "/v1/"}, []string{"/v10", "/v1/x"}},
		{"/posts/*/", []string{"/posts/a/", "/posts/a", "/posts/go-1.22", "/posts/a.css/", "/posts/.a", "/posts/index/"}, []string{"/posts", "/posts/", "/posts/a/b", "/posts/a/b/", "/posts/a.css", "/posts/index"}},
		{"/posts/a*/", []string{"/posts/a", "/posts/ab/"}, []string{"/posts/b", "/posts/a/b", "/posts/a.js"}},
		{"/u/*/*/", []string{"/u/a/b", "/u/a.b/c/"}, []string{"/u/a", "/u/a/b.c", "/u/a/b/c"}},
		{"*/", []string{"/", "/a", "/a/", "/a/b/", "/a.b/c"}, []string{"/a.css", "/a/b.html", "/index"}},
		{"/*/", []string{"/a", "/a/"}, []string{"/", "/a/b/", "/robots.txt"}},
		{"*mid*/", []string{"/amidst", "/a/mid/"}, []string{"/a", "/mid.css"}},
		{"/users/[^~]*", []string{"/users/1", "/users/ab/"}, []string{"/users", "/users/", "/users/1/2"}},
		{"/straße", []string{"/STRAßE", "/straẞe"}, nil},
		{"/kelvin", []string{"/\u212aelvin", "/KELVIN"}, nil},
		{"/paysafe", []string{"/pay\u017fafe"}, nil},
	} {
		p, err := parsePattern(tc.pattern)
		if err != nil {
			t.Errorf("%s: %v", tc.pattern, err)
			continue
		}
		list, err := NewList([]Line{{Kind: Priced, Patterns: []string{tc.pattern}}}, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		for want, paths := range map[bool][]string{true: tc.yes, false: tc.not} {
			for _, path := range paths {
				if got := p.matches(fold(path)); got != want {
					t.Errorf("%s matches %s: %v", tc.pattern, path, got)
				}
				// The index agrees.
				q := request{list: list, in: &list.index, method: "GET"}
				d, err := q.decide(fold(path))
				if err != nil || d.Kind == Priced != want {
					t.Errorf("%s prices %s: %s, %v", tc.pattern, path, d.Kind, err)
				}
			}
		}
	}
}

// decide looks one folded reading up, with every method, and joins what it finds.
func (q *request) decide(path string) (Decision, error) {
	verdicts := make([]verdict, 1+len(q.more))
	q.in = &q.list.index
	if err := q.decideOne(path, verdicts); err != nil {
		return Decision{}, err
	}
	var joined Decision
	for i := range verdicts {
		joined = Join(joined, verdicts[i].found)
	}
	return joined, nil
}

func TestPatternErrors(t *testing.T) {
	for _, tc := range []struct{ pattern, says string }{
		{"", "is empty"},
		{"x", "write /x"},
		{"?x", "must begin with"},
		{"/?p=1", "`@query query p=1` and `price @query / $0.01`"},
		{"/a?b", "for a single odd character write *"},
		{"/a?", "`@query query name=value` and `price @query /a $0.01`"},
		{"*.p?f", "holds ?"},
		{" /x", "must begin with"},
		{"http://example.com/x", "must begin with"},
		{"/{x}", "placeholder"},
		{"/x}", "placeholder"},
		{"/a%2Fb", "escape"},
		{"/100%", "escape"},
		{"/a;b", "parameters"},
		{"/articles/:id", "such as /articles/*"},
		{`/a\b`, "write / instead"},
		{"/a//b", "one slash"},
		{"//a", "one slash"},
		{"/a/./b", "segment"},
		{"/a/../b", "segment"},
		{"/..", "segment"},
		{"/a/.", "segment"},
		{"/a#b", "#"},
		{"/a b", "space"},
		{"/a\tb", "space or a control"},
		{"/a\x00b", "control"},
		{"/a\u00a0b", "space"},
		{"/a\xffb", "UTF-8"},
		{"/a/**", "`/x/*` covers everything"},
		{"**", "write one *"},
		{"/a[b", "without its ]"},
		{"/a]b", "without its ["},
		{"/a[]b", "empty class"},
		{"/a[^]b", "empty class"},
		{"/a[!b]c", "[^…]"},
		{"/a[b/c]d", "class with /"},
		{"/a[b*]d", "class with"},
		{"/a[[b]d", "class with"},
		{"/a[z-a]b", "no range"},
		{"/a[0-z]b", "no range"},
		{"/a[-a]b", "joins nothing"},
		{"/a[a-]b", "joins nothing"},
		{"/" + strings.Repeat("x", maxPattern), "1024"},
		{"/*" + strings.Repeat("x", maxMiddle) + "*y", "between its first"},
	} {
		_, err := parsePattern(tc.pattern)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q: %v, want it to say %q", tc.pattern, err, tc.says)
		}
	}
}

func TestPatternShapes(t *testing.T) {
	for in, want := range map[string]pattern{
		"/x":          {shape: shapeExact, head: "/x", literals: 2},
		"/x/":         {shape: shapeExact, head: "/x", literals: 2},
		"/":           {shape: shapeExact, head: "/", literals: 1},
		"/X/*":        {shape: shapePrefix, head: "/x/", literals: 3},
		"/blog*":      {shape: shapePrefix, head: "/blog", literals: 5},
		"/*":          {shape: shapeAll},
		"*":           {shape: shapeAll},
		"*.pdf":       {shape: shapeGlob, literals: 4},
		"/*.pdf":      {shape: shapeGlob, literals: 5},
		"/a/*/b":      {shape: shapeGlob, head: "/a/", literals: 5},
		"/a/*/b/*":    {shape: shapeGlob, head: "/a/", literals: 6},
		"/ab[cd][^~]": {shape: shapeGlob, head: "/ab", literals: 3},
	} {
		p, err := parsePattern(in)
		if err != nil || p.shape != want.shape || p.head != want.head || p.literals != want.literals {
			t.Errorf("%s: %+v, %v, want %+v", in, p, err, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"*.pdf", "*.doc", false},
		{"*.pdf", "*.pdf", true},
		{"*.css", "*data*", true},
		{"/a/*.css", "/a/b*.c", false},
		{"/a/*/b", "/a/b/*c*d", false},
		{"/a/*/b", "/a/[^~]/b", true},
		{"/a/[a-c]/b", "/a/[d-f]/b", false},
		{"/a/[a-c]/b", "/a/[c-f]/b", true},
		{"/a/[^a]/b", "/a/[a]/b", false},
		{"/a/[^a]/b", "/a/[b]/b", true},
		{"/a/[^a]/b", "/a/[^b]/b", true},
		{"/a/[^a]/b", "/a/a/[^~]*", false},
		{"/a/[+-9]/b", "/a/[.-0]/b", true},
		{"/a/[0-9]/b", "/a/[^0-8]/b", true},
		{"/a/[0-8]/b", "/a/[^0-8]/b", false},
		{"/a/[0-8]/b", "/a/[^0-35-8]/b", true},
		{"/a/[b-cx]/b", "/a/[^b-c]/b", true},
		{"/a/*/b/*", "/a/x/b[^~]*", false},
		{"/a/*/b/*", "/a/x/b/[^~]", true},
		{"/a/*x", "/a/*x/*", true},
		{"/a/[^~]", "/a/[^~]/*", true},
		{"/a/[^~][^~]", "/a/[^~]", false},
		{"/a/[^~]/", "/a/[^~]", true},
		{"*/a", "*/a/", true},
		{"/a/*-*", "/a/b[^~]c*", true},
	} {
		a, errA := parsePattern(tc.a)
		b, errB := parsePattern(tc.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.shape == shapeGlob && b.shape == shapeGlob {
			if got := a.overlap(&b); got != tc.want || b.overlap(&a) != got {
				t.Errorf("%s and %s: %v", tc.a, tc.b, got)
			}
		}
	}
}

// drawGlob draws a glob over a small alphabet, so that globs meet.
func drawGlob(t *rapid.T, label string) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "/", "/a", "*", "[^~]", "[ab]", "[^a]"}), 1, 6).Draw(t, label)
	s := strings.Join(parts, "")
	if s[0] != '/' && s[0] != '*' {
		s = "/" + s
	}
	return s
}

// TestOverlapIsExact compares overlap with all short paths there are: it must
// say yes if one path matches both, and no if the globs are short enough for
// such a path to be among them.
func TestOverlapIsExact(t *testing.T) {
	var paths []string
	var grow func(string)
	grow = func(s string) {
		paths = append(paths, s)
		if len(s) < 8 {
			for _, c := range []string{"a", "b", "/"} {
				grow(s + c)
			}
		}
	}
	grow("")
	rapid.Check(t, func(t *rapid.T) {
		a, errA := parsePattern(drawGlob(t, "a"))
		b, errB := parsePattern(drawGlob(t, "b"))
		if errA != nil || errB != nil || a.shape != shapeGlob || b.shape != shapeGlob {
			t.Skip()
		}
		got, both := a.overlap(&b), ""
		found := false
		for _, path := range paths {
			if a.matches(path) && b.matches(path) {
				found, both = true, path
				break
			}
		}
		short := len(a.glob.symbols)+len(b.glob.symbols) <= 7
		if found && !got {
			t.Fatalf("%q matches both", both)
		}
		if got && !found && short {
			t.Fatal("no path matches both")
		}
	})
}

// slowMatch is the definition of a glob, written without regard to time.
func slowMatch(g []symbol, path []rune) bool {
	if len(g) == 0 {
		return len(path) == 0
	}
	switch s := g[0]; s.kind {
	case symBelow:
		return len(path) == 0 || path[0] == '/'
	case symStar, symDeep:
		return slowMatch(g[1:], path) || len(path) > 0 && s.takes(path[0]) && slowMatch(g, path[1:])
	default:
		return len(path) > 0 && s.takes(path[0]) && slowMatch(g[1:], path[1:])
	}
}

func TestGlobMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := parsePattern(drawGlob(t, "glob"))
		if err != nil || p.shape != shapeGlob {
			t.Skip()
		}
		path := rapid.StringMatching(`/[ab/c]{0,8}`).Draw(t, "path")
		got, _ := p.glob.look(path)
		if want := slowMatch(p.glob.symbols, []rune(path)); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// TestGlobIsNotSlow: no path makes a match take more than its length times the
// length of the glob.
func TestGlobIsNotSlow(t *testing.T) {
	p, err := parsePattern("*" + strings.Repeat("a[^b]*", 20) + "b")
	if err != nil {
		t.Fatal(err)
	}
	if p.matches("/" + strings.Repeat("a", maxOddPath) + "c") {
		t.Error("matched")
	}
}

func TestFold(t *testing.T) {
	// Folding twice is folding once, for every character.
	for r := range rune(0x20000) {
		if 0xd800 <= r && r < 0xe000 {
			continue
		}
		once := fold(string(r))
		if twice := fold(once); twice != once {
			t.Errorf("%U folds to %q and then to %q", r, once, twice)
		}
	}
	for in, want := range map[string]string{
		"/Abc":        "/abc",
		"/\xff\xfe/A": "/\xff\xfe/a", // stays
		"/\xe9T\xe9":  "/\xe9t\xe9",
		"/É":          "/é",
		"/E\u0301":    "/é",
		"":            "",
	} {
		if got := fold(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"/x", "/x/*", "*.pdf", "/a/*/b", "*mid*", "/a[b-c][^~]", "/[^é]*x", "/*", "/a/*/b/*"} {
		f.Add(s, "/a/x/b")
	}
	f.Fuzz(func(t *testing.T, s, path string) {
		p, err := parsePattern(s)
		if err != nil {
			return
		}
		path = fold(path)
		got := p.matches(path)
		if p.shape == shapeGlob {
			if len(path) < 12 && len(p.glob.symbols) < 12 {
				want := slowMatch(p.glob.symbols, []rune(path)) || len(path) > 1 && slowMatch(p.glob.symbols, []rune(trimSlash(path)))
				if got != want {
					t.Fatalf("%q matches %q: %v, want %v", s, path, got, want)
				}
			}
			if !p.overlap(&p) {
				t.Fatalf("%q does not meet itself", s)
			}
		}
		// A pattern without wildcards, taken as a path, is matched.
		if p.shape == shapeExact && !p.matches(fold(s)) {
			t.Fatalf("%q does not match itself", s)
		}
		if path == "" || path[0] != '/' {
			return // no request has such a path
		}
		// The index finds what the pattern matches.
		list, err := NewList([]Line{{Kind: Priced, Patterns: []string{s}}}, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		q := request{list: list, in: &list.index, method: "GET"}
		verdicts := make([]verdict, 1)
		if err := q.lookUp(path, "", verdicts); err != nil || verdicts[0].found.Kind == Priced != got {
			t.Fatalf("%q for %q: %v, %v, want %v", s, path, verdicts[0].found, err, got)
		}
		// It finds too what it matches with an ending, of a file and not of a folder.
		if path == "" || path[0] != '/' || path[len(path)-1] == '/' || hasEnding(path[strings.LastIndexByte(path, '/')+1:]) {
			return
		}
		for _, ending := range completions {
			if p.matches(path+ending) && list.index.completions(path) == 0 && !got {
				t.Fatalf("%q for %q%s is not found", s, path, ending)
			}
		}
	})
}
