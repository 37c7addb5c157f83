package pricing

import (
	"fmt"
	"math/rand"
	"net/http"
	"strings"
	"testing"
)

// boundedLists are lists on which a request may be dear.
func boundedLists(t testing.TB) map[string]*List {
	inside := "1"
	for i := range 200 {
		inside += " *m" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "d*"
	}
	return map[string]*List{
		"one prefix":         mustList(t, Decision{Kind: Free}, "1 /articles/*"),
		"typical":            mustList(t, Decision{Kind: Free}, "1 /articles/* /users/*/export", "2 GET *.pdf *.zip", "3 POST /api/render", "4 *download*", "free *.css"),
		"two hundred inside": mustList(t, Decision{Kind: Free}, inside),
		"globs":              mustList(t, Decision{Kind: Free}, "1 /*/*/*/export", "2 /*/x/*", "3 *a*b*c*/d*"),
		"programs":           mustList(t, Decision{Kind: Free}, "1 /a.b", "2 /buy.phtml /cgi-bin/x"),
		"endings":            mustList(t, Decision{Kind: Free}, "1 *.html *.php* /a/*.htm / /index/x /paper.html"),
		"folders":            mustList(t, Decision{Kind: Free}, "1 /posts/*/ */ /users/*/full/ *.html *.org /a/*.htm"),
		"names":              mustList(t, Decision{Kind: Free}, "1 /articles/7 /é/x /a/[0-9] /x/a /download /x/mid* /07/*/abc"),
		"everything":         mustList(t, Decision{Kind: Refused}, "1 /*"),
	}
}

// TestWorkIsBounded: whatever a request says, the work for it stays within the
// budget, and what would need more is ambiguous and never free.
func TestWorkIsBounded(t *testing.T) {
	parts := []string{
		"/", "//", "/../", "/./", "%2f", "%252f", "%5c", `\`, ";a", ";", "%20", "%09", "\xe9", "%e9", "%c0%af", "%ef%bc%8f", "a.", "a::$DATA", "/a.php/", "/a.phtml/", "/a.b/",
		"%00", "#", "%23", "%u002f", "a", "é", "%25u002f", "ﬁ", "ﷺ", "e\u0301\u0327", "download", "x/a/", "/index/", "/index.html/", "/a.html/", "posts/a../", ".txt", ".data", "/__data.json", "/_next/data/", ".json", "mid", "abc", "A", "%253b", "%252e%252e/", ",a", "|07", "/07", ",mid", "ß", "%d9%a7",
	}
	methods := []string{"GET", "A", "B", "C", "D", "E", "F", "G", "H"}
	random := rand.New(rand.NewSource(1)) //nolint:gosec // the same paths every time
	over, within := 0, 0
	for name, list := range boundedLists(t) {
		for range 400 {
			use := make([]string, 1+random.Intn(4))
			for i := range use {
				use[i] = parts[random.Intn(len(parts))]
			}
			paths := make([]string, 1+random.Intn(9))
			for i := range paths {
				var b strings.Builder
				b.WriteByte('/')
				for length := []int{20, 100, 400, 1500, 4000, 12000}[random.Intn(6)]; b.Len() < length; {
					b.WriteString(use[random.Intn(len(use))])
				}
				paths[i] = b.String()
			}
			q := request{list: list, method: methods[0], more: methods[1:]}
			joined := make([]Decision, len(methods))
			if err := q.decideAll(paths, make([]verdict, len(methods)), joined); err != nil {
				t.Fatal(err)
			}
			// The last step may have begun with a byte left: it looks at one path.
			if most := q.budget + 64*maxOddPath; q.spent > most {
				t.Errorf("%s: %d spent on %.200q", name, q.spent, paths)
			}
			if !q.over() {
				within++
				continue
			}
			over++
			for i, d := range joined {
				if d.Kind != Ambiguous {
					t.Errorf("%s: %s with %s is above the budget", name, d.Kind, methods[i])
				}
			}
		}
	}
	if over < 100 || within < 100 {
		t.Errorf("%d above the budget, %d within: this tests nothing", over, within)
	}
}

// TestMethodsShareTheWork: what is looked up is looked up once for all methods.
func TestMethodsShareTheWork(t *testing.T) {
	spent := func(list *List, path string, methods ...string) int {
		q := request{list: list, method: methods[0], more: methods[1:]}
		joined := make([]Decision, len(methods))
		if err := q.decideAll([]string{path}, make([]verdict, len(methods)), joined); err != nil {
			t.Fatal(err)
		}
		return q.spent
	}
	list := boundedLists(t)["two hundred inside"]
	path := "/a%2Fb/" + strings.Repeat("c", 40)
	one, nine := spent(list, path, "GET"), spent(list, path, "GET", "A", "B", "C", "D", "E", "F", "G", "H")
	if nine > one*3/2 {
		t.Errorf("one method costs %d, nine %d", one, nine)
	}
}

// TestManyPricesCostNoMore: the work for a request does not grow with the number
// of exact and prefix prices.
func TestManyPricesCostNoMore(t *testing.T) {
	spent := func(n int, path string) int {
		all := make([]Line, n)
		for i := range all {
			all[i] = Line{Kind: Priced, Price: i, Patterns: []string{"/" + strings.Repeat("x", 1+i%7) + "/" + strings.Repeat("y", i%11) + string(rune(0x4e00+i)) + []string{"", "/*"}[i%2]}}
		}
		list, err := NewList(all, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		q := request{list: list, method: http.MethodGet}
		if err := q.decideAll([]string{path}, make([]verdict, 1), make([]Decision, 1)); err != nil {
			t.Fatal(err)
		}
		return q.spent
	}
	for _, path := range []string{"/articles/a", "/articles/a%2Fb;c/d"} {
		if few, many := spent(10, path), spent(10_000, path); many > 3*few {
			t.Errorf("%s: %d with ten prices, %d with ten thousand", path, few, many)
		}
	}
}

// TestHonestRequestsAreWithinTheBudget: what real programs ask for is decided,
// however odd or long.
func TestHonestRequestsAreWithinTheBudget(t *testing.T) {
	title := strings.Repeat("%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82_", 12) // a title in Cyrillic
	for _, paths := range [][]string{
		{"/" + strings.Repeat("a", 8<<10)},
		{"/strip/" + strings.Repeat("abcdefg/", 1<<9), "/" + strings.Repeat("abcdefg/", 1<<9)},
		{"/wiki/" + title, "/" + title},
		{"/wiki/" + strings.Repeat("%E6%9D%B1%E4%BA%AC", 30)},
		{"/wiki/" + strings.Repeat("Cafe%CC%81_", 15)}, // decomposed, as macOS writes it
		{"/api/v4/projects/group%2Fsub%2Fproject/repository/files/src%2Fmain%2Fjava%2Forg%2Fexample%2FMain.java/raw?ref=main"},
		{"/shop/items;color=red;size=xl/42;lang=de/details;jsessionid=1A2B3C4D"},
		{"/M%FCnchen/Stra%DFe/%E9t%E9"},
		{"/web/20200101000000/https://example.com/a//b/c?x=" + strings.Repeat("y", 4000)},
		{"/search?q=" + strings.Repeat("word%20", 2000)},
		{"/npm/@scope%2fpackage/-/package-1.2.3.tgz", "/npm/@scope%2fpackage/-/package-1.2.3.tgz"},
		{"/index.php/articles/" + strings.Repeat("long-title-", 30)},
		{"/table/v1/driving/" + strings.Repeat("13.388860,52.517037;", 99) + "13.388860,52.517037"},
		{"/files/route/v1/driving/" + strings.Repeat("13.388860,52.517037;", 24), "/route/v1/driving/" + strings.Repeat("13.388860,52.517037;", 24)},
		{"/2.3/questions/" + strings.Repeat("11227809;", 99) + "11227809/answers"},
		{"/remote.php/dav/files/wang/" + strings.Repeat("%E9%A1%B9", 255)},
		{"/remote.php/dav/files/ivan/" + strings.Repeat("%D0%B6", 255)},
		{"/remote.php/dav/files/kim/" + strings.Repeat("%E1%84%92%E1%85%A1%E1%86%AB", 120)},
		{"/files/remote.php/dav/k/" + strings.Repeat("u%CC%88", 100), "/remote.php/dav/k/" + strings.Repeat("u%CC%88", 100)},
		{"/bucket/" + strings.Repeat("%E9%A1%B9", 340)}, // 1,020 bytes
		{"/bucket/" + strings.Repeat("%D0%B6", 510)},
		{"/img/" + strings.Repeat("eNpVjstqw//Na+4Q7", 470)},
		{"/svg/" + strings.Repeat("%3D%7Bx%7D", 500)},
	} {
		for name, list := range boundedLists(t) {
			if name == "two hundred inside" && (len(paths[0]) > 900 || strings.HasPrefix(paths[0], "/files/")) && !strings.Contains(paths[0], "?") {
				continue // so many globs are not compared with so much
			}
			if d, err := list.Decide(nil, http.MethodGet, paths...); err != nil || d.Kind == Ambiguous {
				t.Errorf("%s: %.80q is %s, %v", name, paths, d.Kind, err)
			}
		}
	}
}

// TestMatchersAreAskedOnce: however many readings and methods a request has, a
// matcher is asked once about it, and once more whether it is sure.
func TestMatchersAreAskedOnce(t *testing.T) {
	asked, sure := 0, 0
	list, err := NewList([]Line{{
		Kind: Priced, Patterns: []string{"/*"}, MatcherName: "@x",
		Matcher: func(*http.Request) (bool, error) { asked++; return true, nil },
		Surely:  func(*http.Request) (bool, error) { sure++; return false, nil },
	}}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.DecideEach(nil, []string{"GET", "A", "B", "C"}, "/a%2fb;c//d", "/e;f"); err != nil {
		t.Fatal(err)
	}
	if asked != 1 || sure != 1 {
		t.Errorf("asked %d and %d times", asked, sure)
	}
}

// TestLongListsDecideOrdinaryPaths: how many patterns the operator has makes no
// ordinary path ambiguous.
func TestLongListsDecideOrdinaryPaths(t *testing.T) {
	line := Line{Kind: Priced, Price: 1}
	// Enough to use up what each of the paths may cost; the list's own checks grow with the
	// square of it.
	for i := range 10_000 {
		line.Patterns = append(line.Patterns, fmt.Sprintf("*-%d.pdf", i))
	}
	list, err := NewList([]Line{line}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Kind{"/about": Free, "/about/": Free, "/a%20page": Free, "/docs/x;y=1/": Free, "/a-7.pdf": Priced, "/x//a-7.pdf": Priced} {
		if d, err := list.Decide(nil, http.MethodGet, path); err != nil || d.Kind != want {
			t.Errorf("%s is %s, %v", path, d.Kind, err)
		}
	}
}
