package pricing

import (
	"fmt"
	"testing"
)

// benchmarkList is a list with half exact and half prefix lines, and a few
// suffixes, as a site with that many articles has.
func benchmarkList(b *testing.B, n int) *List {
	all := make([]Line, 0, n)
	for i := range n {
		pattern := fmt.Sprintf("/articles/%d/full-text", i)
		if i%2 == 1 {
			pattern = fmt.Sprintf("/authors/%d/*", i)
		}
		all = append(all, Line{Kind: Priced, Price: i, Patterns: []string{pattern}})
	}
	all = append(all, Line{Kind: Free, Patterns: []string{"*.css", "*.js", "*.png"}})
	list, err := NewList(all, Decision{Kind: Free})
	if err != nil {
		b.Fatal(err)
	}
	return list
}

func benchmarkDecide(b *testing.B, n int) {
	list := benchmarkList(b, n)
	exact := fmt.Sprintf("/articles/%d/full-text", n/4*2)
	prefix := fmt.Sprintf("/authors/%d/books/the-price-of-water", n/4*2+1)
	for _, bm := range []struct {
		name, path string
		want       Kind
	}{
		{"exact", exact, Priced},
		{"prefix", prefix, Priced},
		{"miss", "/2026/11/23/the-price-of-water/comments", Free},
		{"file", "/assets/site.min.css", Free},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := list.Decide(nil, "GET", bm.path, bm.path)
				if err != nil || d.Kind != bm.want {
					b.Fatal(d, err)
				}
			}
		})
	}
}

func BenchmarkDecide10(b *testing.B)     { benchmarkDecide(b, 10) }
func BenchmarkDecide100000(b *testing.B) { benchmarkDecide(b, 100_000) }

// BenchmarkDecideFile is a file beside prices whose names could have its ending.
func BenchmarkDecideFile(b *testing.B) {
	list := mustList(b, Decision{Kind: Free}, "1 /article /users/*/export", "2 /search /*/report-*-full", "free *.css")
	for _, path := range []string{"/assets/site.min.css", "/article.css", "/article"} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := list.Decide(nil, "GET", path, path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecideOdd(b *testing.B) {
	list := benchmarkList(b, 100_000)
	for _, bm := range []struct{ name, path string }{
		{"space", "/articles/the%20price%20of%20water"},
		{"gitlab", "/api/v4/projects/group%2Fproject/repository"},
		{"matrix", "/shop/items;color=red/42"},
		{"hostile", `/a;b/..//%255c%252f%2e%253b%2500/%20\x`},
		{"long", "/" + string(make([]byte, maxOddPath-100)) + `/a%2fb`},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := list.Decide(nil, "GET", bm.path, bm.path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad100000 is a list that the checks at load do not get through.
func BenchmarkLoad100000(b *testing.B) {
	lines := keyed(100_000)
	for b.Loop() {
		if _, err := NewList(lines, Decision{Kind: Free}); err != nil {
			b.Fatal(err)
		}
	}
}
