package commands

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestSubcommands: caddy paywall has its subcommands, and no others.
func TestSubcommands(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"alone":   {nil, 0, "pay"},
		"unknown": {[]string{"nope\x1b"}, exitUsage, `there is no command "nope"; see caddy paywall --help`},
		"help":    {[]string{"pay", "--help"}, 0, "EXIT CODES"},
	} {
		t.Run(name, func(t *testing.T) {
			root, parent := &cobra.Command{Use: "caddy"}, &cobra.Command{Use: "paywall"}
			addSubcommands(parent)
			root.AddCommand(parent)
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&out)
			root.SetArgs(append([]string{"paywall"}, tt.args...))
			if code := codeOf(t, root.Execute()); code != tt.code || !strings.Contains(out.String(), tt.says) {
				t.Errorf("exit %d: %s", code, out.String())
			}
		})
	}
}

// TestExitCodesAreDocumented: the help text has them all.
func TestExitCodesAreDocumented(t *testing.T) {
	for code := range exitUnpayable + 1 {
		if !strings.Contains(payHelp, fmt.Sprintf("\n  %d  ", code)) {
			t.Errorf("%d is not documented", code)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                         "plain",
		"Zürich ₮ 東京":                   "Zürich ₮ 東京",
		"two\nlines\tand a tab":         "two lines and a tab",
		"\x1b[2J\x1b]0;title\x07x\x7f":  "[2J]0;titlex",
		"pay \u202eTO\u202c \u200bhere": "pay TO here",
		"\xff\xfebroken":                "broken",
		strings.Repeat("ü", maxText):    strings.Repeat("ü", maxText/2) + "…",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}
