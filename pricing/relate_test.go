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
		{"*.pdf", "/photos/*.pdf", true, true},
		{"/photos/*.pdf", "*.pdf", false, true},
		{"/photos/*", "/photos/*.pdf", true, true},
		{"/u/*/export", "/u/1/export", true, true},
		{"/u/*/export", "/u/1/import", false, false},
		{"/u/*", "/u/*/export", true, true},
		{"/u/*/", "/u/1", true, true},
		{"/u/*/", "/u/1.css", false, true},
		{"/u/*/", "/u", false, false},
		{"/u/*", "/u/*/", true, true},
		{"*/", "/u/*/", true, true},
		{"/u/*/x/", "/u/*/x", true, true},
		{"/a%2f", "/a", false, false},
	} {
		overlap, _ := Overlap(tt.a, tt.b)
		if covers := Covers(tt.a, tt.b); covers != tt.covers || overlap != tt.overlap {
			t.Errorf("%s and %s: covers %v, overlap %v", tt.a, tt.b, covers, overlap)
		}
	}
}

func TestExample(t *testing.T) {
	for _, s := range []string{"/*", "/x", "/X/Y", "/x/*", "/x*", "*.pdf", "*mid*", "/u/*/export", "/a[^~]b", "/[b-d]x", "/[^b-d]x/*", "/ü/*", "/u/*/", "*/", "/u/*/x/"} {
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

// TestCommon: a path of two or three patterns is one of each, and there is none where they
// have none in common.
func TestCommon(t *testing.T) {
	for _, tt := range []struct {
		patterns []string
		want     string
	}{
		{[]string{"/paid/*", "*.png"}, "/paid/x.png"},
		{[]string{"/wp-content/uploads/*", "*.pdf"}, "/wp-content/uploads/x.pdf"},
		{[]string{"*.png", "/photos/*.png"}, "/photos/x.png"},
		{[]string{"/a/*", "/*/b", "*b*"}, "/a/b"},
		{[]string{"/a/*", "*.pdf", "*mid*"}, "/a/midx.pdf"},
		{[]string{"/Paid/*", "*.PNG"}, "/Paid/x.PNG"},
		{[]string{"*", "/x/*"}, "/x/x"},
		{[]string{"/x/*/", "/x/*"}, "/x/x/"},
		{[]string{"/*", "/"}, "/"},
		{[]string{"/x*", "/x"}, "/x"},
		{[]string{"/x/*", "/x"}, "/x"},
		{[]string{"/x", "/x/"}, "/x/"},
		{[]string{"/u/[a-d]/*", "/u/[c-z]/y"}, "/u/c/y"},
		{[]string{"/u/[a-c]", "/u/[d-z]"}, ""},
		{[]string{"/paid/*", "/free/*"}, ""},
		{[]string{"/paid/*.jpg", "*.png"}, ""},
		{[]string{"/paid/*", "{path}"}, ""},
		{[]string{"*.pdf"}, "/x.pdf"},
	} {
		if path, ok := Common(tt.patterns...); ok != (tt.want != "") || ok && path != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.patterns, path, ok, tt.want)
		}
	}
}

// FuzzCommon: what two patterns have in common is found where they overlap, both match it,
// and it is found in time.
func FuzzCommon(f *testing.F) {
	f.Add("/paid/*", "*.png")
	f.Add("/a/*/[b-d]", "*[^c]*")
	f.Add("/x/*", "/x")
	f.Fuzz(func(t *testing.T, a, b string) {
		path, ok := Common(a, b)
		overlap, err := Overlap(a, b)
		if ok && (err != nil || !overlap || !Covers(a, path) && CheckPattern(path) == nil || !Covers(b, path) && CheckPattern(path) == nil) {
			t.Errorf("%q and %q: %q", a, b, path)
		}
	})
}
