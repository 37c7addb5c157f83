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
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"alone":   {nil, 0, "pay"},
		"unknown": {[]string{"nope\x1b"}, exitUsage, `there is no command "nope"; see caddy paywall --help`},
		"help":    {[]string{"pay", "--help"}, 0, "EXIT CODES"},

		"payments, unknown flag":    {[]string{"payments", "--nope"}, exitUsage, "caddy paywall payments: unknown flag: --nope"},
		"payments, no number":       {[]string{"payments", "--limit", "x"}, exitUsage, "caddy paywall payments: invalid argument"},
		"payments, two ids":         {[]string{"payments", "a", "b"}, exitUsage, "caddy paywall payments: give one payment id at most; see --help"},
		"payments, no ledger":       {[]string{"payments", "--file", "/nope"}, exitFailure, "caddy paywall payments: opening the ledger: there is none at /nope; say where it is with --file or --postgres-env\n"},
		"payments, none by default": {[]string{"payments"}, exitFailure, "payments.db, where Caddy keeps it unless told otherwise, when it runs as "},
		"payments, a file by name":  {[]string{"payments", "./payments.db"}, exitUsage, `"./payments.db" is no payment id; if it is the file of the ledger, give it with --file`},
		"backup, no name":           {[]string{"payments", "backup"}, exitUsage, "caddy paywall payments backup: give the name of the copy; see --help"},
		"backup, no ledger":         {[]string{"payments", "backup", "--file", "/nope", "copy.db"}, exitFailure, "caddy paywall payments backup: opening the ledger: there is none at /nope; say where it is with --file"},
		"backup, unknown flag":      {[]string{"payments", "backup", "--nope"}, exitUsage, "caddy paywall payments backup: unknown flag: --nope"},
		"pay, an example to try":    {[]string{"pay", "--help"}, 0, "pay --dev-key 1 http://localhost:8402/articles/1"},
		"validate, unknown flag":    {[]string{"validate", "--nope"}, exitUsage, "caddy paywall validate: unknown flag: --nope"},
		"validate, a file by name":  {[]string{"validate", "Caddyfile"}, exitUsage, "caddy paywall validate: unexpected \"Caddyfile\"; give the file with --config"},
		"check, unknown flag":       {[]string{"check", "--nope"}, exitUsage, "caddy paywall check: unknown flag: --nope"},
		"crawlers":                  {[]string{"crawlers"}, 0, " crawlers and agents, as of 20"},
		"crawlers, one kind":        {[]string{"crawlers", "--kind", "search"}, 0, "Googlebot                  search  Google"},
		"crawlers, as JSON":         {[]string{"crawlers", "--format", "json"}, 0, `{"token":"GPTBot","kind":"train","operator":"OpenAI","ranges":["https://openai.com/gptbot.json"]}`},
		"crawlers, unknown kind":    {[]string{"crawlers", "--kind", "nice"}, exitUsage, "caddy paywall crawlers: there is no kind \"nice\"; there are: train, search"},
		"crawlers, unknown format":  {[]string{"crawlers", "--format", "xml"}, exitUsage, "--format: want table or json"},
		"crawlers, a kind by name":  {[]string{"crawlers", "search"}, exitUsage, "for one kind give it with --kind"},
		"pay, two URLs":             {[]string{"pay", "a", "b"}, exitUsage, "caddy paywall pay: give one URL; see --help"},
	} {
		t.Run(name, func(t *testing.T) {
			root, parent := &cobra.Command{Use: "caddy"}, &cobra.Command{Use: "paywall"}
			addSubcommands(parent)
			root.AddCommand(parent)
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&out)
			root.SetArgs(append([]string{"paywall"}, tt.args...))
			if code := codeOf(t, root.Execute()); code != tt.code || !strings.Contains(out.String(), tt.says) || strings.Contains(out.String(), "Error:") {
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
