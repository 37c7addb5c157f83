package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// TestRespell: every spelling is one that the price list understands, so that a
// good gate has no alarm; and there are many.
func TestRespell(t *testing.T) {
	for _, path := range []string{"/paid/x", "/paid", "/a/b/c.pdf", "/buy.php", "/caf%C3%A9/x", "/a%20b/c"} {
		list, err := pricing.NewList([]pricing.Line{{Kind: pricing.Priced, Patterns: []string{pattern(path)}, Price: 1}}, pricing.Decision{Kind: pricing.Free})
		if err != nil {
			t.Fatal(err)
		}
		spelled := respell(path)
		if len(spelled) < 40 {
			t.Errorf("%s has %d spellings", path, len(spelled))
		}
		if slices.Contains(spelled, path) {
			t.Errorf("%s is none of its other spellings", path)
		}
		for _, s := range spelled {
			if d, err := list.Decide(nil, "GET", s); err != nil || d.Kind != pricing.Priced && d.Kind != pricing.Ambiguous {
				t.Errorf("%s: the gate finds %s %v", path, s, d.Kind)
			}
		}
	}
	if len(respell("/")) == 0 {
		t.Error("the root has no spellings")
	}
}

// pattern is the path as a price line has it.
func pattern(path string) string {
	return strings.NewReplacer("%C3%A9", "é", "%20", "*").Replace(path)
}

func TestReferences(t *testing.T) {
	got := references([]byte(`<!doctype html><img src=a><IMG SRC="b" alt="<img src=no>"><script src=c></script><a href=no>
		<link rel=stylesheet href=d><link rel=canonical href=no><video poster=e src=f><source src=" g "><iframe src=h></iframe><script>"<img src=no>"</script>`))
	if want := []string{"a", "b", "c", "d", "f", "e", "g", "h"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := references([]byte(`<base href="https://elsewhere.example/"><img src=a>`)); got != nil {
		t.Errorf("%q", got)
	}
}
