package pricing

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestQueryReadings: what some server reads as the name and value counts as
// there, and only what every server reads so is sure.
func TestQueryReadings(t *testing.T) {
	const (
		no    = "no"
		maybe = "maybe"
		sure  = "sure"
	)
	for _, tc := range []struct{ query, name, value, want string }{
		{"", "p", "*", no},
		{"p=1", "p", "*", sure},
		{"a=2&p=1&b=3", "p", "*", sure},
		{"p=1&p=2", "p", "*", sure},
		{"%70=1", "p", "*", sure},
		{"p=1", "p", "1", sure},
		{"p=%31", "p", "1", sure},
		{"q=a+b", "q", "a b", sure},
		{"q=a%20b", "q", "a b", sure},
		{"p=2", "p", "1", no},
		{"page=1", "p", "*", no},
		{"p_x=1", "p", "*", no},
		{"pp=1", "p", "*", no},
		{"q=p", "p", "*", no},
		{"q=%26p=1", "p", "*", no},
		{"utm_source=x&fbclid=IwAR0%2Bx", "p", "*", no},

		{"p[]=1", "p", "*", maybe}, // PHP, Rack, qs
		{"p[0]=1", "p", "*", maybe},
		{"p[x][y]=1", "p", "*", maybe},
		{"p%5B%5D=1", "p", "*", maybe},
		{"p%5b=1", "p", "*", maybe},
		{"[p]=1", "p", "*", maybe},
		{"p]=1", "p", "*", maybe},
		{"[p]x=1", "p", "*", maybe}, // qs
		{"%5Bp%5Dx=1", "p", "*", maybe},
		{"[p]]x=1", "p", "*", maybe},
		{"[p][x]y=1", "p", "*", maybe},
		{"[p]%20x=1", "p", "*", maybe},
		{"p]x=1", "p", "*", maybe}, // Rack
		{"p]x]=1", "p", "*", maybe},
		{"p%255Dx=1", "p", "*", maybe},
		{"p+]x=1", "p", "*", maybe},
		{"filter[id]x=1", "filter[id]", "*", maybe},
		{".p=1", "p", "*", maybe},  // qs with allowDots
		{".p=1", "_p", "*", maybe}, // PHP
		{"[px]=1", "p", "*", no},
		{"[px]p=1", "p", "*", no},
		{"x[p]=1", "p", "*", no},
		{"x]p=1", "p", "*", no},
		{"p+x=1", "p", "*", no},
		{"p.x=1", "p", "*", maybe},
		{"p%00=1", "p", "*", maybe}, // PHP
		{"p%00x=1", "p", "*", maybe},
		{"p%2500=1", "p", "*", maybe},
		{"+p=1", "p", "*", maybe},
		{"%20p=1", "p", "*", maybe},
		{"%09p=1", "p", "*", maybe},
		{"p+=1", "p", "*", maybe},
		{"P=1", "p", "*", maybe}, // ASP.NET
		{"?p=1", "p", "*", maybe},
		{"p", "p", "*", maybe}, // absent to Python's parse_qs
		{"p=", "p", "*", maybe},
		{"a=1;p=1", "p", "*", maybe},
		{"a=1&amp;p=1", "p", "*", maybe},
		{"p=1;a=2", "p", "*", maybe}, // Go drops it
		{"%2570=1", "p", "*", maybe}, // decoded twice
		{"%u0070=1", "p", "*", maybe},
		{"%uff50=1", "p", "*", maybe},
		{"p#=1", "p", "*", maybe}, // Node
		{"p=1#x", "p", "*", maybe},
		{"x#&p=1", "p", "*", maybe},
		{"p%3D1", "p", "*", maybe},
		{"%p=1", "p", "*", maybe}, // IIS leaves it out
		{"p%zz=1", "p", "*", no},
		{"p=%zz", "p", "*", maybe}, // Go drops it
		{"a.b=1", "a_b", "*", maybe},
		{"a+b=1", "a_b", "*", maybe},
		{"a%5Bb=1", "a_b", "*", maybe},
		{"filter[id]=1", "filter[id]", "*", sure},
		{"filter%5Bid%5D=1", "filter[id]", "*", sure},
		{"filter[id][]=1", "filter[id]", "*", maybe},
		{"filter.id=1", "filter[id]", "*", maybe},
		{"filter[ids]=1", "filter[id]", "*", no},

		{"feed=rss2", "feed", "rss2", sure},
		{"feed=RSS2", "feed", "rss2", maybe},
		{"feed[]=rss2", "feed", "rss2", maybe},
		{"feed=atom&feed=rss2", "feed", "rss2", maybe}, // first or last
		{"feed=rss2&feed=atom", "feed", "rss2", maybe},
		{"feed=rss2&feed=rss2", "feed", "rss2", maybe}, // ASP.NET: rss2,rss2
		{"feed=rss2&FEED=atom", "feed", "rss2", maybe},
		{"feed=rss2&feed%00x=atom", "feed", "rss2", maybe},
		{"feed=rss2%00", "feed", "rss2", maybe},
		{"feed=+rss2", "feed", "rss2", maybe},
		{"feed=rss2%0a", "feed", "rss2", maybe},
		{"feed=rss2#x", "feed", "rss2", maybe},
		{"feed=atom,rss2", "feed", "rss2", maybe},
		{"feed=%2572ss2", "feed", "rss2", maybe},
		{"feed=%u0072ss2", "feed", "rss2", maybe},
		{"feed=rss", "feed", "rss2", no},
		{"p=01", "p", "1", maybe},
		{"p=1abc", "p", "1", maybe},
		{"p=1.0", "p", "1", maybe},
		{"p=0x1", "p", "1", maybe},
		{"p=%2B1", "p", "1", maybe},
		{"p=1e0", "p", "1", maybe},
		{"p=%EF%BC%91", "p", "1", maybe},
		{"p=quot%C3%A9", "p", "quote", maybe}, // MySQL
		{"p=QU%C3%94TE", "p", "quote", maybe},
		{"p=a,quo%CC%81te", "p", "quote", maybe},
		{"p=quo%C2%ADte", "p", "quote", maybe},
		{"p=cafe", "p", "café", maybe},
		{"p=caf%C3%A9", "p", "café", sure},
		{"p=stra%C3%9Fe", "p", "strasse", maybe},
		{"p=stra%C3%9Fe", "p", "strase", maybe},
		{"p=%D0%B8", "p", "и", sure},
		{"p=quot%C3%A9s", "p", "quote", no},
		{"p=%231", "p", "1", maybe}, // Spring
		{"p=1+0", "p", "10", maybe},
		{"p=1_0", "p", "10", maybe},
		{"p=%D9%A1", "p", "1", maybe},
		{"p=01.50", "p", "1.5", maybe},
		{"p=15e-1", "p", "1.5", maybe},
		{"p=-01", "p", "-1", maybe},
		{"p=1.6", "p", "1.5", no},
		{"!p=1", "p", "1", maybe}, // Spring, where it binds an object
		{"%21p=1", "p", "1", maybe},
		{"p!=1", "p", "1", no},
		{"p=11", "p", "1", no},
		{"p=a1", "p", "1", no},
		{"p=" + strings.Repeat("0", 2000) + "1", "p", "1", maybe},

		{strings.Repeat("a=1&", 200) + "p=1", "p", "*", sure},
		{strings.Repeat("a=1&", 300), "p", "*", maybe}, // nobody reads on
		{strings.Repeat("p=1&", 100), "p", "*", maybe},
	} {
		some, every := ReadQuery(tc.query).Has(tc.name, []string{tc.value})
		got := map[[2]bool]string{{false, false}: no, {true, false}: maybe, {true, true}: sure}[[2]bool{some, every}]
		if got != tc.want {
			t.Errorf("%.40q: %s=%s is %q, want %q", tc.query, tc.name, tc.value, got, tc.want)
		}
	}
	for query, want := range map[string][2]bool{"": {true, true}, "&&": {true, true}, "a": {false, false}, "=1": {true, false}, ";": {true, false}} {
		if some, every := ReadQuery(query).Empty(); [2]bool{some, every} != want {
			t.Errorf("%q is empty: %v %v, want %v", query, some, every, want)
		}
	}
}

// FuzzQuery: what Go reads, some server reads, and what is sure Go reads too.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"p=1", "p[]=1&q=%zz", "a;b=c&%u0070", "+p%00=1,2", "%25%37%30=1", "p=" + strings.Repeat("%", 50)} {
		f.Add(seed, "p", "1")
	}
	f.Fuzz(func(t *testing.T, query, name, value string) {
		q := ReadQuery(query)
		parsed, _ := url.ParseQuery(query)
		for _, want := range []string{"*", value} {
			some, every := q.Has(name, []string{want})
			if every && !some {
				t.Errorf("%q: %q=%q is everywhere and nowhere", query, name, want)
			}
			values, there := parsed[name]
			if want != "*" {
				there = len(values) > 0 && (values[0] == want || values[len(values)-1] == want)
			}
			if there && !some && !strings.ContainsAny(name+value, "\x00") {
				t.Errorf("%q: %q=%q is not seen", query, name, want)
			}
			if every && !there {
				t.Errorf("%q: %q=%q is sure, and Go reads %q", query, name, want, parsed)
			}
		}
	})
}

// BenchmarkQuery: what a query costs at worst, by what its sender can fill 8 kB
// with.
func BenchmarkQuery(b *testing.B) {
	const size = 8 << 10
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, query := range map[string]string{
		"ordinary": "utm_source=x&page=2&q=some+words&sort=date",
		"short":    fill("a=1&abc=2&"),
		"escaped":  fill("%61%62=1&"),
		"nearly":   fill("%70%72=1&"),
		"twice":    fill("%2570r=1&"),
		"named":    fill("%70=%31&"),
		"one":      "p=" + fill("%30"),
		"below":    "p=" + strings.Repeat("%30", 60),
		"parts":    fill("a;"),
	} {
		b.Run(fmt.Sprintf("%s %d", name, len(query)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ReadQuery(query).Has("p", []string{"1"})
			}
		})
	}
}
