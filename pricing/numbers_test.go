package pricing

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestNumbersAreReadAsLanguagesDo: a number is known in every spelling that the languages of
// servers have for it.
func TestNumbersAreReadAsLanguagesDo(t *testing.T) {
	for text, want := range map[string][]string{
		"7": {"7"}, "07": {"7"}, strings.Repeat("0", 500) + "7": {"7"}, "+7": {"7"}, " 7\t": {"7"}, "7.0": {"7"}, "7.": {"7"},
		"7e0": {"7"}, "70e-1": {"7"}, ".7e1": {"7"}, "1e3": {"1000"}, "1e65": {"1" + strings.Repeat("0", 65)}, "1e331": nil, "0x7": {"7"}, "0X07": {"7"}, "#7": {"7"}, "-#7": {"-7"}, "0b111": {"7"}, "0o7": {"7"},
		"010": {"10", "8"}, "1 0": {"10"}, "1_0": {"10"}, "٧": {"7"}, "𝟕": {"7"}, "१०": {"10"}, "\u20077": {"7"}, "7\u00ad": {"7"},
		"1.50": {"1.5"}, "01.5": {"1.5"}, "1.5f": {"1.5"}, "7d": {"7"}, "0": {"0"}, "-0": {"0"}, "00": {"0"}, "0x0": {"0"}, "-07": {"-7", "-7"}, "0e5": {"0"},
		"1.5000000000000000000001": {"1.5000000000000000000001", "1.5"}, "0.0": {"0"},
		"": nil, "x": nil, "7-title": nil, "7x": nil, "1,2": nil, "1.2.3": nil, ".": nil, "#": nil, "0x": nil, "+": nil, "-": nil, "e5": nil, "1e": nil,
		"1e99999999999": nil, "0xg": nil, "7é": nil, "f": nil, "é": nil, "--7": nil, "0x11111111111111111": nil,
	} {
		got := numbersIn(text)
		if !slices.Equal(got.all(), slices.Compact(want)) {
			t.Errorf("%.40q: %q, want %q", text, got.all(), want)
		}
	}
	for text, want := range map[string]bool{"7": true, "07": true, "-7": true, "1.5": true, "": false, "-": false, "1.": false, ".5": false, "1.2.3": false, "x7": false, "7x": false} {
		if isNumber(text) != want {
			t.Errorf("%q is a number: %v", text, !want)
		}
	}
}

// TestWhatGoReadsIsThatNumber: what Go reads as a number is that number.
func TestWhatGoReadsIsThatNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[+-]?(0[xob]?)?[0-9a-f_]{0,6}(\.[0-9]{0,4})?(e[+-]?[0-9])?`).Draw(t, "text")
		got := numbersIn(text)
		for _, base := range []int{0, 10} {
			if n, err := strconv.ParseInt(text, base, 64); err == nil && !got.has(strconv.FormatInt(n, 10)) {
				t.Fatalf("%q: %q, want %d", text, got.all(), n)
			}
		}
		if f, err := strconv.ParseFloat(text, 64); err == nil && !strings.ContainsAny(text, "xX") && !got.has(strings.TrimPrefix(strconv.FormatFloat(f, 'f', -1, 64), "-0")) && f != 0 {
			if f > -1 && f < 0 && got.has(strconv.FormatFloat(f, 'f', -1, 64)) {
				return
			}
			t.Fatalf("%q: %q, want %v", text, got.all(), f)
		}
	})
}

// FuzzNumbers: no text makes us panic, and every reading is written plainly.
func FuzzNumbers(f *testing.F) {
	for _, seed := range []string{"7", "0x7", "1e-3", "٧.5", "#", "-.5f", "0_0", "1e99"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := numbersIn(text)
		for _, number := range got.all() {
			again := numbersIn(number)
			if !isNumber(number) || !again.has(number) {
				t.Errorf("%q is read as %q, which is not written plainly: %q", text, number, again.all())
			}
		}
	})
}
