package pricing

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestReadings(t *testing.T) {
	for _, tc := range []struct {
		path string
		want []string // all readings, the first first
	}{
		// One reading.
		{"/", []string{"/"}},
		{"/a/b", []string{"/a/b"}},
		{"/a/b/", []string{"/a/b/"}},
		{"/a?x=//%2F;", []string{"/a"}},
		{"/.well-known/x", []string{"/.well-known/x"}},
		{"/.git/a..b/...", []string{"/.git/a..b/..."}},
		{"/@a/~b/c+d/e=f/g:h/i,j/(k)!*'$&", []string{"/@a/~b/c+d/e=f/g:h/i,j/(k)!*'$&"}},
		// Needless escapes make no second reading.
		{"/%61%7E%40%2D", []string{"/a~@-"}},
		{"/a%20b", []string{"/a b"}},
		{"/caf%C3%A9", []string{"/café"}},
		{"/100%", []string{"/100%"}},
		{"/%zz%", []string{"/%zz%"}},
		// Latin-1.
		{"/caf%E9", []string{"/caf\xe9", "/café"}},
		// Structure.
		{"/a%2Fb", []string{"/a%2Fb", "/a/b"}},
		{"/a%2fb", []string{"/a%2fb", "/a/b"}},
		{"/a%252Fb", []string{"/a%252Fb", "/a%2Fb", "/a/b"}},
		{"/a%25252Fb", []string{"/a%25252Fb", "/a%252Fb", "/a%2Fb"}}, // not three times
		{"/a;v=1", []string{"/a;v=1", "/a"}},
		{"/a;v=1/b", []string{"/a;v=1/b", "/a/b", "/a"}},
		{"/a;v=1/b;w", []string{"/a;v=1/b;w", "/a/b", "/a", "/a;v=1/b"}},
		{"/a;v/b;w;x", []string{"/a;v/b;w;x", "/a/b", "/a", "/a;v/b", "/a;v/b;w"}},
		// A list of things: no server drops one after the other.
		{"/a;1;2;3;4;5;6;7;8;9", []string{"/a;1;2;3;4;5;6;7;8;9", "/a", "/a;1;2;3;4;5;6;7;8", "/a;1;2;3;4;5;6;7", "/a;1;2;3;4;5;6", "/a;1;2;3;4;5", "/a;1;2;3;4", "/a;1;2;3", "/a;1;2", "/a;1"}},
		{"/a;1;2;3;4;5;6;7;8;9;10", []string{"/a;1;2;3;4;5;6;7;8;9;10", "/a", "/a;1;2;3;4;5;6;7;8;9"}},
		{`/a\b`, []string{`/a\b`, "/a/b"}},
		{"/a//b", []string{"/a//b", "/a/b"}},
		{"//", []string{"//", "/"}},
		{"/a/./b", []string{"/a/./b", "/a/b"}},
		{"/a/b/.", []string{"/a/b/.", "/a/b/"}},
		{"/a/../b", []string{"/a/../b", "/b"}},
		{"/a/b/..", []string{"/a/b/..", "/a/"}},
		{"/..", []string{"/..", "/"}},
		{"/../a", []string{"/../a", "/a"}},
		{"/a/..;x/b", []string{"/a/..;x/b", "/a/../b", "/a/..", "/b", "/"}},
		{"/a/%2e%2e/b", []string{"/a/../b", "/b"}},
		{"/a//../b", []string{"/a//../b", "/a/../b", "/a/b", "/b"}},
		{"/a%2Fb/../c", []string{"/a%2Fb/../c", "/a/b/../c", "/c", "/a/c"}},
		// A server that splits before it decodes drops an escaped slash as part
		// of its segment.
		{"/a%2Fb/%252e%252e/c", []string{
			"/a%2Fb/%252e%252e/c", "/a/b/%2e%2e/c", "/a%2Fb/%2e%2e/c", "/a/b/../c", "/a%2Fb/../c", "/a/c", "/c",
		}},
		// Ends.
		{"/a%00.css", []string{"/a%00.css", "/a\x00.css", "/a", "/a.css"}},
		{"/a%3Fb", []string{"/a%3Fb", "/a?b", "/a"}},
		{"/a%23b", []string{"/a%23b", "/a#b", "/a"}},
		{"/a#b", []string{"/a#b", "/a"}},
		{"/a%0A", []string{"/a%0A", "/a\n", "/a"}},
		{"/a%20", []string{"/a ", "/a"}},
		{"/a%20/b", []string{"/a /b", "/a/b"}},
		// Broken UTF-8 and Microsoft's escapes.
		{"/a%C0%AFb", []string{"/a\xc0\xafb", "/a/b", "/aÀ¯b", "/aÀ \u0304b"}},
		{"/a%E0%80%AFb", []string{"/a\xe0\x80\xafb", "/a/b", "/aà\u0080¯b", "/aà\u0080 \u0304b"}},
		{"/a%F0%80%80%AFb", []string{"/a\xf0\x80\x80\xafb", "/a/b", "/að\u0080\u0080¯b", "/að\u0080\u0080 \u0304b"}},
		{"/a%u002fb", []string{"/a%u002fb", "/a/b"}},
		{"/%U0061", []string{"/%U0061", "/a"}},
		{"/%u006", []string{"/%u006"}},
		{"/%u00zz", []string{"/%u00zz"}},
		{"/a%EF%BC%8Fb", []string{"/a／b", "/a/b"}},
		// What Windows drops from names.
		{"/a.", []string{"/a.", "/a"}},
		{"/a../b", []string{"/a../b", "/a/b", "/a/../b", "/b"}},
		{"/a%20./b", []string{"/a ./b", "/a/b"}},
		{"/...", []string{"/..."}},
		// A folder in the place of what a path begins with, and `..` behind it.
		{"/s/static../x/y../z", []string{"/s/static../x/y../z", "/s/static/x/y/z", "/s/static/../x/y/../z", "/s/x/z"}},
		{"/wait../", []string{"/wait../", "/wait/", "/wait/../", "/"}},
		{"/wait..", []string{"/wait..", "/wait"}},
		{"/v1..v2/a..b", []string{"/v1..v2/a..b"}},
		{"/wait.../x", []string{"/wait.../x", "/wait/x"}},
		{"/a/%20./b", []string{"/a/ ./b", "/a/./b", "/a//b", "/a/b"}},
		{"/a/.%20.", []string{"/a/. .", "/a/"}},
		{"/a::$DATA", []string{"/a::$DATA", "/a"}},
		{"/a:$I30:$INDEX_ALLOCATION/b", []string{"/a:$I30:$INDEX_ALLOCATION/b", "/a/b"}},
		{"/a:b$", []string{"/a:b$"}},
		// Front controllers.
		{"/index.php/a/b", []string{"/index.php/a/b", "/a/b"}},
		{"/x/INDEX.PHP/a", []string{"/x/INDEX.PHP/a", "/x/a"}},
		{"/a.cgi/b.aspx/c", []string{"/a.cgi/b.aspx/c", "/b.aspx/c", "/c"}},
		{"/index.php", []string{"/index.php"}},
		{"/index.phps/a", []string{"/index.phps/a", "/s/a"}},
		{"/.php/a", []string{"/.php/a", "/a"}},
		// Hosts.
		{"//a/b", []string{"//a/b", "/a/b", "/b"}},
		{"///a@b:1//c", []string{"///a@b:1//c", "/a@b:1/c", "//c", "/c", "/"}},
		{`/\a\b`, []string{`/\a\b`, "//a/b", "/a/b", "/b"}},
		// No slash.
		{"", []string{"/"}},
		{"?a", []string{"/"}},
		{"*", []string{"/", "/*", "*"}},
		{"a/b", []string{"/", "/a/b", "a/b"}},
		{`\a`, []string{"/", `/\a`, `\a`, "//a", "/a"}},
		{"%2Fa", []string{"/", "/%2Fa", "%2Fa", "//a", "/a"}},
	} {
		got, ok := Readings(tc.path)
		if !ok || got[0] != tc.want[0] || !sameStrings(got, tc.want) {
			t.Errorf("%q: %q, %v, want %q", tc.path, got, ok, tc.want)
		}
	}
}

func sameStrings(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestTooManyReadings(t *testing.T) {
	for name, path := range map[string]string{
		"long":        "/" + strings.Repeat("a", maxOddPath) + ";",
		"bytes":       "/" + strings.Repeat("a", maxOddPath/2) + `/..;x//%2e%252f\b%00%3fc`,
		"very tricky": strings.Repeat(`/a;b/..//%255c%252f%2e%253b%2500%253f%c0%af%u002f\%20`, 8),
	} {
		if readings, ok := Readings(path); ok {
			t.Errorf("%s: %d readings", name, len(readings))
		}
		list := mustList(t, Decision{Kind: Free}, "1 /x")
		if d, err := list.Decide(nil, "GET", path); err != nil || d.Kind != Ambiguous {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	// Only what is odd is bounded.
	if readings, ok := Readings("/" + strings.Repeat("a", 2*maxOddPath)); !ok || len(readings) != 1 {
		t.Error("a long plain path was refused")
	}
}

// spelling is a way to write a path so that some server still reads the path:
// the reverse of one step of Readings.
type spelling struct {
	name string
	// decodes says that the reading needs one decoding.
	decodes bool
	write   func(t *rapid.T, path string) string
}

func at(t *rapid.T, path string) int { return rapid.IntRange(0, len(path)-1).Draw(t, "at") }

// slashAt is the place of one of the slashes of a path.
func slashAt(t *rapid.T, path string) int {
	var slashes []int
	for i := range len(path) {
		if path[i] == '/' {
			slashes = append(slashes, i)
		}
	}
	return rapid.SampledFrom(slashes).Draw(t, "slash")
}

func insert(path string, at int, s string) string { return path[:at] + s + path[at:] }

var spellings = []spelling{
	{"escape", true, func(t *rapid.T, path string) string {
		// A first slash that is escaped is no request path any more.
		i := at(t, path)
		if i == 0 {
			return path
		}
		const hex = "0123456789abcdef"
		s := "%" + string(hex[path[i]>>4]) + string(hex[path[i]&0xf])
		if rapid.Bool().Draw(t, "upper") {
			s = strings.ToUpper(s)
		}
		return path[:i] + s + path[i+1:]
	}},
	{"escape all", true, func(_ *rapid.T, path string) string {
		var b strings.Builder
		b.WriteByte('/')
		for i := 1; i < len(path); i++ {
			b.WriteString("%" + string("0123456789abcdef"[path[i]>>4]) + string("0123456789ABCDEF"[path[i]&0xf]))
		}
		return b.String()
	}},
	{"//", false, func(t *rapid.T, path string) string { return insert(path, slashAt(t, path), "/") }},
	{"/./", false, func(t *rapid.T, path string) string { return insert(path, slashAt(t, path), "/.") }},
	{"/x/../", false, func(t *rapid.T, path string) string {
		s := rapid.SampledFrom([]string{"/x/..", "/static/..", "/a/b/../..", "/x/./.."}).Draw(t, "detour")
		return insert(path, slashAt(t, path), s)
	}},
	{";p=1", false, func(t *rapid.T, path string) string {
		s := rapid.SampledFrom([]string{";", ";p=1", ";jsessionid=1A", ";a;b=c"}).Draw(t, "params")
		i := slashAt(t, path)
		if i == 0 {
			return path + s
		}
		return insert(path, i, s)
	}},
	{";all/the/rest", false, func(_ *rapid.T, path string) string { return path + ";all/the/rest" }},
	{`\`, false, func(t *rapid.T, path string) string {
		i := slashAt(t, path)
		if i == 0 {
			return path
		}
		return path[:i] + `\` + path[i+1:]
	}},
	{"case", false, func(t *rapid.T, path string) string {
		i := at(t, path)
		// The digits of an escape may change too: %2f is %2F.
		return path[:i] + strings.ToUpper(path[i:i+1]) + path[i+1:]
	}},
	{"slash at the end", false, func(_ *rapid.T, path string) string {
		if strings.HasSuffix(path, "/") {
			return path
		}
		return path + "/"
	}},
	{"%00", true, func(t *rapid.T, path string) string {
		return path + rapid.SampledFrom([]string{"%00", "%00.css", "%3F", "%3fx=1", "%23", "%0a", "%20", "%20%0d", "%09"}).Draw(t, "end")
	}},
	{"overlong slash", true, func(t *rapid.T, path string) string {
		i := slashAt(t, path)
		if i == 0 {
			return path
		}
		return path[:i] + rapid.SampledFrom([]string{"%c0%af", "%E0%80%AF", "%u002f", "%f0%80%80%af"}).Draw(t, "spelling") + path[i+1:]
	}},
}

// drawSpelling writes a path in a way that some server reads as the path.
func drawSpelling(t *rapid.T, path string) string {
	decodes := 0
	for range rapid.IntRange(1, 4).Draw(t, "times") {
		s := rapid.SampledFrom(spellings).Draw(t, "spelling")
		if s.decodes {
			if decodes == maxDecodes {
				continue
			}
			decodes++
		}
		path = s.write(t, path)
	}
	return path
}

// TestNoSpellingIsFree: however a priced path is spelled, no reading is given
// away, on a list with much that is free.
func TestNoSpellingIsFree(t *testing.T) {
	list := mustList(t, Decision{Kind: Free},
		"1 /paid", "1 /api/v1/report", "1 /files/*", "1 *.pdf", "1 /a/*/secret",
		"free /static/*", "free *.css *.js", "free /public", "free /x/*", "free /all/*",
	)
	paid := []string{"/paid", "/api/v1/report", "/files/a", "/files/a/b.css", "/files", "/x.pdf", "/doc/y.pdf", "/a/b/secret"}
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.SampledFrom(paid).Draw(t, "path")
		spelled := drawSpelling(t, path)
		d, err := list.Decide(nil, "GET", spelled)
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != Priced && d.Kind != Ambiguous {
			readings, _ := Readings(spelled)
			t.Fatalf("%q, spelled %q, is %s; readings %q", path, spelled, d.Kind, readings)
		}
		readings, ok := Readings(spelled)
		if ok && !slices.ContainsFunc(readings, func(r string) bool { return trimSlash(fold(r)) == fold(path) }) {
			t.Fatalf("%q, spelled %q, is not among the readings %q", path, spelled, readings)
		}
	})
}

// TestOrderDoesNotMatter: the decision does not depend on the order of the
// lines, and neither does whether the list is refused.
func TestOrderDoesNotMatter(t *testing.T) {
	patterns := []string{
		"/*", "*", "/a", "/a/", "/a/*", "/a/b", "/a/b/*", "/ab*", "*.b", "*b*", "/a/*/b", "/a/*/b/*", "/a/[^~]", "/[^~]/b", "/*/b", "/b", "/b/*",
	}
	paths := []string{"/", "/a", "/a/", "/a/b", "/a/b/b", "/ab", "/a.b", "/b", "/b/b/b", "/c", "/a%2Fb", "/a;b/b", "/a/../b", "*", "/A//B"}
	rapid.Check(t, func(t *rapid.T) {
		var list []Line
		for range rapid.IntRange(0, 8).Draw(t, "lines") {
			words := []string{rapid.SampledFrom([]string{"free", "1", "2"}).Draw(t, "price")}
			words = append(words, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"GET", "HEAD", "POST"}), 0, 2, rapid.ID).Draw(t, "methods")...)
			if m := rapid.SampledFrom([]string{"", "@m", "@n"}).Draw(t, "matcher"); m != "" {
				words = append(words, m)
			}
			words = append(words, rapid.SliceOfNDistinct(rapid.SampledFrom(patterns), 1, 2, rapid.ID).Draw(t, "patterns")...)
			list = append(list, line(strings.Join(words, " ")))
		}
		otherwise := Decision{Kind: rapid.SampledFrom([]Kind{Free, Refused, Priced}).Draw(t, "otherwise"), Price: 9}
		first, err := NewList(list, otherwise)
		second, err2 := NewList(rapid.Permutation(list).Draw(t, "order"), otherwise)
		if err == nil != (err2 == nil) {
			t.Fatalf("%v in one order, %v in another", err, err2)
		}
		if err != nil {
			return
		}
		r := requestWith(rapid.SampledFrom([][]string{nil, {"m"}, {"n"}, {"m", "n"}}).Draw(t, "headers")...)
		method := rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "get"}).Draw(t, "method")
		for _, path := range paths {
			a, errA := first.Decide(r, method, path)
			b, errB := second.Decide(r, method, path)
			if errA != nil || errB != nil || outcome(a) != outcome(b) {
				t.Fatalf("%s %s: %s in one order, %s in another", method, path, outcome(a), outcome(b))
			}
			// What decides is what a look at all lines finds.
			if want := slowDecide(first, method, path); isPlain(path) && len(r.Header) == 0 && outcome(a) != want {
				t.Fatalf("%s %s: %s, want %s", method, path, outcome(a), want)
			}
		}
	})
}

// slowDecide decides a plain path without the index, for requests that no
// matcher matches.
func slowDecide(l *List, method, path string) string {
	found, best := slowLook(l, method, path)
	name := strings.LastIndexByte(path, '/') + 1
	if dot := strings.LastIndexByte(path, '.'); dot > name {
		without, other := slowLook(l, method, path[:dot])
		switch {
		case other == nil && (best != nil || without.Kind != MethodNotAllowed):
		case other != nil && other.pattern.matches(fold(path)):
		case best != nil && best.goesBefore(other, dot):
		default:
			found = Join(found, without)
		}
	}
	return outcome(found)
}

func slowLook(l *List, method, path string) (Decision, *entry) {
	var best *entry
	allow := map[string]bool{}
	for i := range l.lines {
		line := &l.lines[i]
		for _, s := range line.Patterns {
			p, _ := parsePattern(s)
			e := newEntry(p, line, i)
			if line.Matcher != nil || !p.matches(fold(path)) {
				continue
			}
			if !line.allows(method) {
				for _, m := range line.Methods {
					allow[m] = true
					if m == "GET" {
						allow["HEAD"] = true
					}
				}
				continue
			}
			if best == nil || compareRank(e.rank, best.rank) < 0 {
				best = &e
			}
		}
	}
	switch {
	case best != nil:
		return Decision{Kind: l.lines[best.line].Kind, Price: l.lines[best.line].Price}, best
	case len(allow) > 0:
		var methods []string
		for m := range allow {
			methods = append(methods, m)
		}
		slices.Sort(methods)
		return Decision{Kind: MethodNotAllowed, Allow: methods}, nil
	default:
		return l.otherwise, nil
	}
}

func FuzzReadings(f *testing.F) {
	for _, s := range []string{
		"/", "*", "", "/a%2Fb", "/a;v=1/b", `/a\b`, "//", "/a/../b", "/a%252e%252e/b", "/caf%E9", "/a%c0%afb", "/%u002f",
		"/a%00b", "/a%3Fb", "/a/ .#0", "/..;/..;/", "/%25%32%66", "/ %20/", "/a/./../.", "%2e%2e/x",
	} {
		f.Add(s)
	}
	list := mustList(f, Decision{Kind: Refused}, "1 /*")
	f.Fuzz(func(t *testing.T, path string) {
		d, err := list.Decide(nil, "GET", path)
		if err != nil || d.Kind != Priced && d.Kind != Ambiguous {
			t.Fatalf("%q on a list that prices everything: %+v, %v", path, d, err)
		}
		readings, ok := Readings(path)
		if !ok {
			return
		}
		seen := map[string]bool{}
		for _, r := range readings {
			if r == "" || seen[r] {
				t.Fatalf("%q: %q", path, readings)
			}
			seen[r] = true
		}
		if len(readings) == 0 || len(readings) > maxReadings {
			t.Fatalf("%q: %d readings", path, len(readings))
		}
		noQuery, _, _ := strings.Cut(path, "?")
		if isPlain(noQuery) != (len(readings) == 1 && readings[0] == noQuery && featuresOf(noQuery) == 0) {
			t.Fatalf("%q: %q", path, readings)
		}
		// One of the readings has nothing left to be read in another way, up to
		// escapes beyond the second decoding.
		if !slices.ContainsFunc(readings, func(r string) bool {
			return featuresOf(r)&^(featEscape|featHigh|featBlank) == 0
		}) {
			t.Fatalf("%q: no reading is simple: %q", path, readings)
		}
		if utf8.ValidString(path) && strings.IndexByte(path, '%') < 0 {
			for _, r := range readings {
				if !utf8.ValidString(r) {
					t.Fatalf("%q: %q is not UTF-8", path, r)
				}
			}
		}
	})
}

// isSimple and foldShort are shortcuts, and nothing else.
func TestShortcuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.OneOf(
			rapid.StringOfN(rapid.RuneFrom([]rune("/.ab%A;\\ é\x00#?~")), 0, 12, -1),
			rapid.String(),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) string { return "/" + string(b) }),
			rapid.StringOfN(rapid.RuneFrom([]rune("/aA.z-")), 250, 260, -1),
		).Draw(t, "path")
		if got, want := isPlain(path), featuresOf(path) == 0; got != want {
			t.Errorf("isPlain(%q) = %v", path, got)
		}
		var buf [256]byte
		if got, want := foldShort(&buf, path), fold(path); got != want {
			t.Errorf("foldShort(%q) = %q, want %q", path, got, want)
		}
	})
}
