package pricing

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestOtherNamesOfAPath: a path costs what it does under each name that a server may take
// for one in it, and of two prices the dearer one.
func TestOtherNamesOfAPath(t *testing.T) {
	const free, one, two = "free", "1", "2"
	for lines, paths := range map[string]map[string]string{
		"2 /articles/7 /scores/1.5 /users/7/export /old/07/x /year/2024/05/*": {
			"/articles/7": two, "/articles/07": two, "/articles/0000007/": two, "/articles/+7": two, "/articles/7.0": two, "/articles/0x7": two,
			"/articles/%237": two, "/articles/%207": two, "/articles/%D9%A7": two, "/articles/%EF%BC%97": two, "/articles/7e0": two, "/articles/%F0%9D%9F%95": two,
			"/articles/07.json": two, "/articles/07.html": two, "/articles/07/index.html": two, "/articles/07/__data.json": two,
			"/scores/01.50": two, "/scores/1.5": two, "/scores/1.50": two, "/scores/15e-1": two, "/scores/1.5000000000000000000001": two,
			"/users/07/export": two, "/users/%D9%A7/export": two, "/old/7/x": two, "/old/007/x": two,
			"/year/2024/5/a": two, "/year/02024/5": two, "/year/2024/05/a": two, "/year/0x7e8/%D9%A5/a": two,
			"/articles/8": free, "/articles/17": free, "/articles/70": free, "/articles/7-title": free, "/articles/7x": free, "/articles/-7": free,
			"/users/8/export": free, "/7/articles": free, "/scores/1": free, "/scores/15": free, "/year/2024/15/a": free,
		},
		"2 /articles/7 /articles/10\n1 /articles/*\nfree /articles/08 /articles/010 /articles/9/*": {
			"/articles/7": two, "/articles/07": two, "/articles/8": one, "/articles/08": free, "/articles/+8": one, "/articles/1%200": two, "/articles/1_0": two, "/articles/010": free, "/articles/0x0a": two,
			"/articles/9/x": free, "/articles/09/x": one,
		},
		"1 /docs/1.1/*\n2 /docs/1.10/*": {"/docs/1.1/x": one, "/docs/1.10/x": two},
		"2 /docs/1.10/*":                {"/docs/1.1/x": free, "/docs/1.100/x": two, "/docs/01.1/x": two},
		"2 /a/[1-3] /b/1* /c/x":         {"/a/2": two, "/a/02": two, "/a/4": free, "/a/04": free, "/b/12": two, "/b/012": two, "/b/2": free, "/c/1": free},
		"2 /a/3d":                       {"/a/3d": two, "/a/3": free, "/a/03": free},

		"2 /api/trpc/report /api/trpc/post.byId /api/trpc/admin.* /index1/_search\nfree /api/trpc/hello*": {
			"/api/trpc/hello": free, "/api/trpc/report": two, "/api/trpc/hello,report": two, "/api/trpc/report,report": two, "/api/trpc/hello,report,": two,
			"/api/trpc/hello%2Creport": two, "/api/trpc/hello%252Creport": two, "/api/trpc/hello,post.byId": two, "/api/trpc/hello,POST.BYID,x": two, "/api/trpc/hello,admin.x": two,
			"/api/trpc/hello,other": free, "/api/trpc/hello,reports": free, "/x,index1/_search": two, "/x/_search": free, "/api/trpc/hello|report": two, "/api/trpc/hello;report": two,
			"/route/v1/driving/" + strings.Repeat("13.388860,52.517037;", 99) + "13.388860,52.517037": free,
			"/x/" + strings.Repeat("report,", 500):                                                    free,
		},
		"2 /api/trpc/report\n1 /api/trpc/*": {"/api/trpc/hello": one, "/api/trpc/hello,report": two, "/api/trpc/report,hello": two},
		"2 /articles/7 /articles/9":         {"/articles/1,07": two, "/articles/1,8": free, "/articles/9,7": two},

		"2 /articles/quote /articles/strasse /blog*\nfree /articles/free": {
			"/articles/quot%C3%A9": two, "/articles/qu%C3%B4te": two, "/articles/QU%C3%94TE": two, "/articles/quo%CC%82te": two, "/articles/qu%F4te": two,
			"/articles/quo%C2%ADte": two, "/articles/quot%E2%80%8Be": two, "/articles/%EF%BD%91uote": two, "/articles/stra%C3%9Fe": two, "/articles/qu%C3%B8te": two,
			"/bl%C3%B6g-1": two, "/articles/qu%C3%B4te.json": two, "/articles/hello,qu%C3%B4te": two,
			"/articles/quotes": free, "/articles/quot%C3%A9s": free, "/articles/%D7%A9": free,
		},
		"1 /articles/*\nfree /articles/sample /articles/où": {
			"/articles/sample": free, "/articles/SAMPLE": free, "/articles/s%C3%A0mple": one, "/articles/o%C3%B9": free, "/articles/ou": one,
		},
		"2 /café/* /crème\n1 /café-noir": {
			"/caf%C3%A9/x": two, "/cafe/x": two, "/caf%C3%A8/x": two, "/creme": two, "/CREME": two, "/cafe-noir": one, "/caf": free, "/cremes": free,
		},
		"2 /ガラス /क्षि": {"/%E3%82%AB%E3%82%99%E3%83%A9%E3%82%B9": two, "/%E3%82%AB%E3%83%A9%E3%82%B9": two, "/%E0%A4%95%E0%A5%8D%E0%A4%B7": free},
	} {
		list := mustList(t, Decision{Kind: Free}, strings.Split(lines, "\n")...).WithDearer(func(a, b int) (int, bool) { return max(a, b), true })
		for path, want := range paths {
			d, err := list.Decide(nil, http.MethodGet, path)
			if err != nil {
				t.Fatal(err)
			}
			got := d.Kind.String()
			if d.Kind == Priced {
				got = string(rune('0' + d.Price))
				if prices := list.Prices(path); !containsPrice(prices, d.Price) {
					t.Errorf("%q: %s costs %d, which is none of %v", lines, path, d.Price, prices)
				}
			}
			if got != want {
				t.Errorf("%q: %.80s is %s, want %s", lines, path, got, want)
			}
		}
	}
}

func containsPrice(prices []int, price int) bool {
	for _, p := range prices {
		if p == price {
			return true
		}
	}
	return false
}

// TestManyNamesInOneAreBounded: more names than anybody needs are refused, and cost little.
func TestManyNamesInOneAreBounded(t *testing.T) {
	var lines, names []string
	for i := range 200 {
		name := strings.Repeat("a", 1+i%20) + string(rune('a'+i/20)) + "z"
		lines, names = append(lines, "/t/"+name), append(names, name)
	}
	list := mustList(t, Decision{Kind: Free}, "1 "+strings.Join(lines, " "))
	for path, want := range map[string]Kind{
		"/t/x," + strings.Join(names[:20], ","): Priced,
		"/t/x," + strings.Join(names, ","):      Ambiguous,
		"/t/" + strings.Repeat("x,", 5000):      Free,
	} {
		if d, err := list.Decide(nil, http.MethodGet, path); err != nil || d.Kind != want {
			t.Errorf("%.40s: %s, %v, want %s", path, d.Kind, err, want)
		}
	}
}

// TestLongListsBoundTheNamesInOne: many names in one are not compared with many wildcards.
func TestLongListsBoundTheNamesInOne(t *testing.T) {
	line := Line{Kind: Priced, Price: 1}
	for i := range 25_000 {
		line.Patterns = append(line.Patterns, fmt.Sprintf("/a/*-%d", i))
	}
	list, err := NewList([]Line{line}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Kind{"/a/x,x-7": Priced, "/a/x,y": Free, "/a/" + strings.Repeat("x,", 100): Ambiguous} {
		if d, err := list.Decide(nil, http.MethodGet, path); err != nil || d.Kind != want {
			t.Errorf("%s is %s, %v", path, d.Kind, err)
		}
	}
}

// TestBareTextHasNoAccents: what is left of a text has no accents, is left alone the second
// time, and is as long as what is looked at piece by piece.
func TestBareTextHasNoAccents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := fold(rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("aé\u0301ßæøłガが한\u00ad\u200bйệ/")))).Draw(t, "s"))
		got, end := bare(s)
		if again, left := bare(got); again != got || left != 0 {
			t.Fatalf("%+q: %+q, and then %+q", s, got, again)
		}
		for _, r := range norm.NFD.String(got) {
			if isMark(r) {
				t.Fatalf("%+q: %+q has %U", s, got, r)
			}
		}
		if got == s != (end == 0) || end > len(s) {
			t.Fatalf("%+q: %+q, until %d", s, got, end)
		}
	})
}
