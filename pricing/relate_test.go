package pricing

import (
	"testing"
)

func TestRelate(t *testing.T) {
	for _, tt := range []struct {
		a, b            string
		covers, overlap bool
	}{
		{"*", "/x/*", true, true},
		{"/*", "/x", true, true},
		{"/x/*", "/*", false, true},
		{"/x/*", "/x/*", true, true},
		{"/x/*", "/X/y", true, true},
		{"/x/*", "/x", true, true},
		{"/x/*", "/xy", false, false},
		{"/x*", "/xy/*", true, true},
		{"/x/y/*", "/x/*", false, true},
		{"/x", "/x/", true, true},
		{"/x", "/y", false, false},
		{"/x/*", "*.pdf", false, true},
		{"*.pdf", "/a.pdf", true, true},
		{"*.pdf", "/a.html", false, false},
		{"*.pdf", "*.html", false, false},
		{"/u/*/export", "/u/1/export", true, true},
		{"/u/*/export", "/u/1/import", false, false},
		{"/u/*", "/u/*/export", true, true},
		{"/a%2f", "/a", false, false},
	} {
		overlap, _ := Overlap(tt.a, tt.b)
		if covers := Covers(tt.a, tt.b); covers != tt.covers || overlap != tt.overlap {
			t.Errorf("%s and %s: covers %v, overlap %v", tt.a, tt.b, covers, overlap)
		}
	}
}

func TestExample(t *testing.T) {
	for _, s := range []string{"/*", "/x", "/X/Y", "/x/*", "/x*", "*.pdf", "*mid*", "/u/*/export", "/a[^~]b", "/[b-d]x", "/[^b-d]x/*", "/ü/*"} {
		path, ok := Example(s)
		if !ok {
			t.Errorf("%s has no example (%s)", s, path)
			continue
		}
		l, err := NewList([]Line{{Kind: Priced, Patterns: []string{s}, Price: 1}}, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := l.Decide(nil, "GET", path); err != nil || d.Kind != Priced {
			t.Errorf("%s: the example %s is %v, %v", s, path, d.Kind, err)
		}
	}
	if _, ok := Example("/a%2f"); ok {
		t.Error("what is no pattern has an example")
	}
}
