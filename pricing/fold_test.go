package pricing

import (
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestSettledCharactersAreNormal: what is not looked up is normal indeed.
func TestSettledCharactersAreNormal(t *testing.T) {
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if s := string(r); isSettled(r) && (!norm.NFKC.IsNormalString(s) || !norm.NFKC.PropertiesString(s).BoundaryBefore()) {
			t.Errorf("%U is not normal", r)
		}
		if got, want := foldRune(r), foldSlowly(r); got != want {
			t.Errorf("%U is folded to %U, want %U", r, got, want)
		}
	}
}

// TestSimpleTextIsComposed: the quick way to fold and to compose leads where the
// long one does.
func TestSimpleTextIsComposed(t *testing.T) {
	same := func(r rune) rune { return r }
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("\u1100\u1112\u1113\u1161\u1175\u1176\u11a7\u11a8\u11c2\u11c3가각힣\u0308ê\u0302e\u0301\u0327uAж项か\u3099ﬁ;\u037e")))).Draw(t, "s")
		composed, settled := composeSimply(s, same)
		for _, form := range []norm.Form{norm.NFC, norm.NFKC} {
			if got, want := form.String(composed), form.String(s); got != want {
				t.Fatalf("%+q: %+q, want %+q", s, got, want)
			}
			if settled && form.String(composed) != composed {
				t.Fatalf("%+q is not composed", composed)
			}
		}
		c := closure{spent: new(int), budget: 1 << 30}
		if got, want := c.compose(s), norm.NFKC.String(s); got != want {
			t.Fatalf("%+q: %+q, want %+q", s, got, want)
		}
	})
}

// TestFoldIsNFC: folding is lower case, composed, however it is done.
func TestFoldIsNFC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("\u1112\u1161\u11ab\u0308\u0301\u0327\u0345uUAΑαιΣς\u03b9\u0390й\u0306иか\u3099\u212aſ")))).Draw(t, "s")
		runes := []rune(s)
		for i := range runes {
			runes[i] = foldSlowly(runes[i])
		}
		if got, want := foldUnicode(s), norm.NFC.String(string(runes)); got != want {
			t.Fatalf("%+q: %+q, want %+q", s, got, want)
		}
	})
}
