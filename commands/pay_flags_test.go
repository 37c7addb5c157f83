package commands

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestKeySources: where a key may come from, and that none is needed for what
// costs nothing.
func TestKeySources(t *testing.T) {
	s := newSeller(t)
	t.Setenv("PAYWALL_KEY", "")
	t.Setenv("OTHER_KEY", "0x"+testPrivate)
	t.Setenv("BAD_KEY", testPrivate[1:])
	file := filepath.Join(t.TempDir(), "key")
	write := func(text string, mode os.FileMode) {
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(testPrivate+"\n", 0o600)
	for name, tt := range map[string]struct {
		args []string
		code int
		err  string
	}{
		"variable":        {[]string{"--key-env", "OTHER_KEY"}, 0, "payer: " + payer},
		"file":            {[]string{"--key-file", file}, 0, "payer: " + payer},
		"account 1":       {[]string{"--dev-key", "1"}, 0, "payer: 0x70997970C51812dc3A010C7d01b50e0d17dc79C8"},
		"none":            {nil, 2, "no key to pay with: set PAYWALL_KEY"},
		"bad variable":    {[]string{"--key-env", "BAD_KEY"}, 2, "the variable BAD_KEY: not a private key"},
		"no file":         {[]string{"--key-file", file + "x"}, 2, "--key-file"},
		"no such account": {[]string{"--dev-key", "-2"}, 2, "no such account"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(t, nil, append(tt.args, s.URL)...); got.code != tt.code || !strings.Contains(got.err, tt.err) {
				t.Errorf("%+v", got)
			}
		})
	}
	if got := run(t, nil, s.URL+"/free"); got.code != 0 || got.out != "free goods" {
		t.Errorf("%+v", got)
	}
	write(testPrivate, 0o644)
	if got := run(t, nil, "--key-file", file, s.URL); got.code != 0 || runtime.GOOS != "windows" && !strings.Contains(got.err, "other users can read the key") {
		t.Errorf("%+v", got)
	}
	write("no key", 0o600)
	if got := run(t, nil, "--key-file", file, s.URL); got.code != 2 {
		t.Errorf("%+v", got)
	}
	s.price.Network, s.price.Asset = "eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
	s.price.Extra = []byte(`{"name":"USD Coin","version":"2"}`)
	if got := run(t, nil, "--dev-key", "0", s.URL); got.code != exitUnpayable || !strings.Contains(got.err, "only with test money") {
		t.Errorf("%+v", got)
	}
}

// TestDryRun shows all that would be signed, and signs and sends nothing.
func TestDryRun(t *testing.T) {
	s := newSeller(t)
	t.Setenv("PAYWALL_KEY", testPrivate)
	got := run(t, nil, "--dry-run", s.URL)
	var shown struct {
		TypedData struct {
			Domain  map[string]any
			Message map[string]string
		}
		Header  string
		Payment struct {
			Accepted x402.Requirement
			Payload  struct{ Signature string }
		}
	}
	if err := json.Unmarshal([]byte(got.out), &shown); err != nil || got.code != 0 {
		t.Fatalf("%v in %+v", err, got)
	}
	if m := shown.TypedData.Message; m["to"] != payTo || m["from"] != payer || m["value"] != "10000" || len(m["nonce"]) != 66 {
		t.Errorf("%v", m)
	}
	if shown.TypedData.Domain["verifyingContract"] != usdc || shown.Header != x402.HeaderPaymentSignature ||
		shown.Payment.Accepted.PayTo != payTo || shown.Payment.Payload.Signature != "0x" {
		t.Errorf("%+v", shown)
	}
	if got := run(t, nil, "--dry-run", "--v1", s.URL); !strings.Contains(got.out, `"X-Payment"`) {
		t.Errorf("%+v", got)
	}
	if got := run(t, says("y\n"), "--dry-run", "--max", "0", s.URL); got.code != exitTooDear || strings.Contains(got.err, "pay it?") {
		t.Errorf("%+v", got)
	}
	t.Setenv("PAYWALL_KEY", "")
	if got := run(t, nil, "--dry-run", s.URL); got.code != 0 || !strings.Contains(got.err, "there is no key yet") {
		t.Errorf("%+v", got)
	}
	if sent := s.paid(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
}

// TestRequestFlags: the request is the one that the flags describe.
func TestRequestFlags(t *testing.T) {
	s := newSeller(t)
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stdin := "from stdin"
	for name, tt := range map[string]struct {
		args         []string
		method, body string
	}{
		"plain":        {nil, "GET", ""},
		"method":       {[]string{"-X", "DELETE"}, "DELETE", ""},
		"body":         {[]string{"-d", "a=b"}, "POST", "a=b"},
		"empty body":   {[]string{"-d", ""}, "POST", ""},
		"method, body": {[]string{"-X", "PUT", "--data", "x"}, "PUT", "x"},
		"file":         {[]string{"-d", "@" + file}, "POST", "from a file\n"},
		"empty file":   {[]string{"-d", "@" + empty}, "POST", ""},
		"stdin":        {[]string{"-d", "@-"}, "POST", stdin},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(tt.args, "--dev-key", "0", "-H", "X-A: 1", "-H", "x-a:2", "-H", "Accept: text/plain", "-H", "Host: shop.example", s.URL+"/x?y=z")
			got := run(t, &stdin, args...)
			r, body := s.seen()
			if got.code != 0 || r.Method != tt.method || body != tt.body || r.ContentLength != int64(len(tt.body)) {
				t.Fatalf("%+v\n%s %q", got, r.Method, body)
			}
			if r.Host != "shop.example" || r.RequestURI != "/x?y=z" || strings.Join(r.Header["X-A"], ",") != "1,2" ||
				strings.Join(r.Header["Accept"], ",") != "text/plain" || r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("%+v", r)
			}
		})
	}
	for _, bad := range [][]string{{"-d", "@" + file + "x"}, {"-d", "@" + t.TempDir()}, {"-H", "no colon"}, {"-H", "a b: c"}, {"-H", ": x"}, {"-H", "X: a\r\nB: c"}, {"-X", "G T"}} {
		if got := run(t, nil, append(bad, s.URL)...); got.code != exitUsage {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestOutput: where the body goes, and what becomes of the file without one.
func TestOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "goods")
	read := func() string {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return "(none)"
		}
		return string(b)
	}
	s := newSeller(t, truncates, truncates, delivers)
	got := run(t, nil, "--dev-key", "0", "--max", "0.001", "-o", file, s.URL)
	if got.code != exitTooDear || read() != "(none)" {
		t.Errorf("%+v, file %q", got, read())
	}
	if err := os.WriteFile(file, []byte("what was there before, which is longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	got = run(t, nil, "--dev-key", "0", "--max", "0.001", "-o", file, s.URL)
	if got.code != exitTooDear || !strings.HasPrefix(read(), "what was there") {
		t.Errorf("%+v, file %q", got, read())
	}
	got = run(t, nil, "--dev-key", "0", "-o", file, s.URL)
	if got.code != 0 || read() != "the goods" || got.out != "" || len(s.paid()) != 3 || s.paid()[0] != s.paid()[2] {
		t.Errorf("%+v, file %q", got, read())
	}
	got = run(t, nil, "--dev-key", "0", "-i", s.URL)
	if got.code != 0 || !strings.HasPrefix(got.out, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got.out, "\r\n\r\nthe goods") {
		t.Errorf("%+v", got)
	}
	before := len(s.paid())
	got = run(t, nil, "--dev-key", "0", "-o", filepath.Join(file, "x"), s.URL)
	if got.code != exitFailure || len(s.paid()) != before {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat("/dev/full"); err == nil {
		got = run(t, nil, "--dev-key", "0", "-o", "/dev/full", s.URL)
		if got.code != exitFailure || !strings.Contains(got.err, "writing the output") || !strings.Contains(got.err, "it was paid all the same, and paying again costs again") {
			t.Errorf("%+v", got)
		}
		got = run(t, nil, "--dev-key", "0", "-o", "/dev/full", s.URL+"/free")
		if got.code != exitFailure || strings.Contains(got.err, "again") {
			t.Errorf("%+v", got)
		}
	}
}

// TestTheLastLineEnds: on a terminal, so that what is said next begins a line; a
// pipe gets the answer to the letter.
func TestTheLastLineEnds(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		s := newSeller(t, func(w http.ResponseWriter, _ *http.Request) {
			(&seller{price: requirement()}).challenge(w, "settlement_failed")
		})
		p := &pay{terminal: func(io.Reader) bool { return false }, screen: func(io.Writer) bool { return terminal }}
		got := runPay(t, p, nil, "--dev-key", "0", s.URL)
		if got.code != exitRefused || !strings.Contains(got.out, "settlement_failed") || strings.HasSuffix(got.out, "}\n") != terminal {
			t.Errorf("terminal %v: %+v", terminal, got)
		}
	}
	for in, want := range map[string]string{"": "", "a": "a\n", "a\n": "a\n", "a\n\x1b": "a\n"} {
		var out bytes.Buffer
		s := &screen{w: &out}
		if _, err := s.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		s.end()
		if out.String() != want {
			t.Errorf("%q became %q", in, out.String())
		}
	}
}
