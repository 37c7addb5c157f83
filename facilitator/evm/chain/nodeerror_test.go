package chain

import (
	"errors"
	"fmt"
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

// saying is what a node answers.
type saying string

func (s saying) Error() string { return string(s) }
func (saying) ErrorCode() int  { return -32000 }

// TestOnlyWordsOfANodeCount: its name, and what we write around its words, say nothing.
func TestOnlyWordsOfANodeCount(t *testing.T) {
	quota := &Node{Host: "quota.example"}
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"none":                      {nil, false},
		"the name of a host":        {quota.clean(saying("deadline exceeded")), false},
		"an error of ours":          {errors.New("quota"), false},
		"its answer":                {saying("Quota exceeded"), true},
		"with a host":               {(&Node{Host: "node.example"}).clean(saying("quota exceeded")), true},
		"of the second of two":      {errors.Join(quota.clean(errors.New("EOF")), fmt.Errorf("wrapped: %w", quota.clean(saying("quota")))), true},
		"of neither of two":         {errors.Join(quota.clean(saying("EOF")), quota.clean(saying("deadline"))), false},
		"wrapped around the answer": {fmt.Errorf("quota: %w", saying("EOF")), false},
	} {
		if got := Mentions(tt.err, "quota"); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
