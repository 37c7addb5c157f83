package remote

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	const url = "https://facilitator.example/x402"
	for name, c := range map[string]struct {
		input string
		want  string // JSON
		err   string
	}{
		"url":          {input: `remote ` + url, want: `{"url":"` + url + `"}`},
		"empty block":  {input: "remote " + url + " {\n}", want: `{"url":"` + url + `"}`},
		"loopback":     {input: `remote http://127.0.0.1:4021`, want: `{"url":"http://127.0.0.1:4021"}`},
		"bearer":       {input: "remote " + url + " {\n auth bearer {env.TOKEN}\n}", want: `{"url":"` + url + `","auth":{"type":"bearer","token":"{env.TOKEN}"}}`},
		"header":       {input: "remote " + url + " {\n auth header X-Api-Key {file./run/key}\n}", want: `{"url":"` + url + `","auth":{"type":"header","name":"X-Api-Key","value":"{file./run/key}"}}`},
		"cdp, timeout": {input: "remote " + url + " {\n timeout 7s\n auth cdp {env.A} {env.B}\n}", want: `{"url":"` + url + `","auth":{"type":"cdp","key_id":"{env.A}","key_secret":"{env.B}"},"timeout":7000000000}`},

		"no url":               {input: `remote`, err: "missing"},
		"no url, a block":      {input: "remote {\n timeout 5s\n}", err: "missing"},
		"two urls":             {input: `remote ` + url + ` ` + url, err: "surplus"},
		"http":                 {input: `remote http://facilitator.example`, err: "https"},
		"password":             {input: `remote https://me:canary@facilitator.example`, err: "auth"},
		"unknown word":         {input: "remote " + url + " {\n retries 3\n}", err: `unknown word "retries"`},
		"auth, no kind":        {input: "remote " + url + " {\n auth\n}", err: "bearer, header or cdp"},
		"auth, unknown kind":   {input: "remote " + url + " {\n auth canary-token\n}", err: "unknown kind"},
		"auth, no token":       {input: "remote " + url + " {\n auth bearer\n}", err: "auth bearer <token>"},
		"auth, two tokens":     {input: "remote " + url + " {\n auth bearer canary canary\n}", err: "auth bearer <token>"},
		"auth, no value":       {input: "remote " + url + " {\n auth header X-Api-Key\n}", err: "auth header <name> <value>"},
		"auth, no secret":      {input: "remote " + url + " {\n auth cdp canary\n}", err: "auth cdp <key_id> <key_secret>"},
		"auth, surplus":        {input: "remote " + url + " {\n auth cdp canary canary canary\n}", err: "auth cdp <key_id> <key_secret>"},
		"auth twice":           {input: "remote " + url + " {\n auth bearer a\n auth bearer b\n}", err: "twice"},
		"auth with a block":    {input: "remote " + url + " {\n auth bearer a {\n b\n }\n}", err: "block"},
		"timeout, none":        {input: "remote " + url + " {\n timeout\n}", err: "one duration"},
		"timeout, two":         {input: "remote " + url + " {\n timeout 1s 2s\n}", err: "one duration"},
		"timeout twice":        {input: "remote " + url + " {\n timeout 1s\n timeout 2s\n}", err: "twice"},
		"timeout, no unit":     {input: "remote " + url + " {\n timeout 5\n}", err: "no duration"},
		"timeout, zero":        {input: "remote " + url + " {\n timeout 0s\n}", err: "more than 0"},
		"timeout, negative":    {input: "remote " + url + " {\n timeout -1s\n}", err: "more than 0"},
		"timeout, too long":    {input: "remote " + url + " {\n timeout 1h\n}", err: "at most"},
		"timeout with a block": {input: "remote " + url + " {\n timeout 5s {\n b\n }\n}", err: "block"},
	} {
		t.Run(name, func(t *testing.T) {
			var f Facilitator
			err := f.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.input))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error holds a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// The parser leaves what follows the segment to others.
func TestUnmarshalCaddyfileStopsAtItsEnd(t *testing.T) {
	d := caddyfile.NewTestDispenser("facilitator https://a.example {\n timeout 1s\n}\nfacilitator https://b.example")
	d.Next()
	var f Facilitator
	if err := f.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		t.Fatal(err)
	}
	if f.URL != "https://a.example" || time.Duration(f.Timeout) != time.Second {
		t.Errorf("got %+v", f)
	}
	if !d.Next() || d.Val() != "facilitator" {
		t.Errorf("the next token is %q", d.Val())
	}
}

func TestParseBase(t *testing.T) {
	for raw, want := range map[string]string{
		"https://a.example":                "https://a.example",
		"https://a.example/":               "https://a.example",
		"https://a.example//":              "https://a.example",
		"https://a.example/x402///":        "https://a.example/x402",
		"https://A.Example/X402":           "https://a.example/X402",
		"https://a.example:443/x":          "https://a.example/x",
		"https://a.example:8443":           "https://a.example:8443",
		"HTTPS://a.example":                "https://a.example",
		"https://10.0.0.7":                 "https://10.0.0.7",
		"https://[2001:db8::1]/x":          "https://[2001:db8::1]/x",
		"http://localhost:4021/":           "http://localhost:4021",
		"http://LOCALHOST":                 "http://localhost",
		"http://127.0.0.1":                 "http://127.0.0.1",
		"http://127.9.9.9:1":               "http://127.9.9.9:1",
		"http://[::1]:4021":                "http://[::1]:4021",
		"http://[::ffff:127.0.0.1]:1":      "http://[::ffff:127.0.0.1]:1",
		"":                                 "",
		"a.example":                        "",
		"//a.example":                      "",
		"https://":                         "",
		"https:///x402":                    "",
		"https:a.example":                  "",
		"ftp://a.example":                  "",
		"unix//run/socket":                 "",
		"http://a.example":                 "",
		"http://10.0.0.7":                  "",
		"http://localhost.a.example":       "",
		"http://127.0.0.1.a.example":       "",
		"http://2130706433":                "",
		"http://[::2]":                     "",
		"http://0.0.0.0:4021":              "",
		"https://0.0.0.0":                  "",
		"https://169.254.169.254/latest":   "",
		"https://[fe80::1]":                "",
		"https://[::ffff:169.254.169.254]": "",
		"https://user@a.example":           "",
		"https://user:canary@a.example":    "",
		"https://:canary@a.example":        "",
		"https://a.example?key=canary":     "",
		"https://a.example/?":              "",
		"https://a.example/#canary":        "",
		"https://a.example/#":              "",
		"https://a.example:0":              "",
		"https://a.example:65536":          "",
		"https://a.example:canary":         "",
		"https://a.example/{env.KEY}":      "",
		"{env.URL}":                        "",
		"https://a b.example":              "",
		"https://a.example/%zz":            "",
	} {
		got, err := parseBase(raw)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is taken as %s", raw, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%q is taken as %v (%v), want %s", raw, got, err, want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("%q: the error holds a secret: %v", raw, err)
		}
	}
}
