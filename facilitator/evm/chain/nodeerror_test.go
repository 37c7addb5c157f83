package chain

import (
	"strings"
	"testing"
)

// FuzzCleanText: what reaches the log is one bounded line without secrets.
func FuzzCleanText(f *testing.F) {
	f.Add("execution reverted: 0x" + strings.Repeat("ab", 300))
	f.Add("a\nb\x00\xff" + secret)
	f.Fuzz(func(t *testing.T, s string) {
		out := cleanText(s, []string{secret})
		if len(out) > maxLogText+len("…") || strings.ContainsAny(out, "\n\r\x00") || strings.Contains(out, secret) {
			t.Errorf("%q", out)
		}
	})
}
