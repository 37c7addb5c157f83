package remote

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestProvisionAuth(t *testing.T) {
	t.Setenv("PAYWALL_TEST_TOKEN", " env-token\n")
	t.Setenv("PAYWALL_TEST_EMPTY", "")
	t.Setenv("PAYWALL_TEST_LINES", "canary\r\nX-Other: 1")
	t.Setenv("PAYWALL_TEST_PEM", strings.ReplaceAll(sec1(t, p256(t, loadCDP(t))), "\n", `\n`))
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte("file-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		auth  *Auth
		want  string // the header that is sent, "" for an error
		clear bool
	}{
		"none":        {nil, ": ", false},
		"bearer":      {&Auth{Type: "bearer", Token: "t"}, "Authorization: Bearer t", true},
		"environment": {&Auth{Type: "bearer", Token: "{env.PAYWALL_TEST_TOKEN}"}, "Authorization: Bearer env-token", false},
		"file":        {&Auth{Type: "header", Name: "X-Api-Key", Value: "{file." + file + "}"}, "X-Api-Key: file-token", false},
		"mixed":       {&Auth{Type: "header", Name: "authorization", Value: "Token {env.PAYWALL_TEST_TOKEN}"}, "Authorization: Token  env-token", false},
		"PEM":         {&Auth{Type: "cdp", KeyID: "id", KeySecret: "{env.PAYWALL_TEST_PEM}"}, "Authorization: Bearer eyJ", false},

		"no type":             {&Auth{Token: "canary"}, "", false},
		"unknown type":        {&Auth{Type: "canary"}, "", false},
		"no token":            {&Auth{Type: "bearer"}, "", false},
		"no name":             {&Auth{Type: "header", Value: "canary"}, "", false},
		"no value":            {&Auth{Type: "header", Name: "X-Api-Key"}, "", false},
		"no id":               {&Auth{Type: "cdp", KeySecret: "canary"}, "", false},
		"no secret":           {&Auth{Type: "cdp", KeyID: "canary"}, "", false},
		"no key":              {&Auth{Type: "cdp", KeyID: "id", KeySecret: "canary"}, "", false},
		"field of another":    {&Auth{Type: "bearer", Token: "canary", Value: "canary"}, "", false},
		"unset":               {&Auth{Type: "bearer", Token: "{env.PAYWALL_TEST_UNSET}"}, "", false},
		"empty":               {&Auth{Type: "bearer", Token: "{env.PAYWALL_TEST_EMPTY}"}, "", false},
		"blank":               {&Auth{Type: "bearer", Token: "  "}, "", false},
		"no such file":        {&Auth{Type: "bearer", Token: "{file." + file + ".canary}"}, "", false},
		"other placeholder":   {&Auth{Type: "bearer", Token: "{http.request.header.canary}"}, "", false},
		"system placeholder":  {&Auth{Type: "bearer", Token: "{system.hostname}"}, "", false},
		"line break":          {&Auth{Type: "bearer", Token: "{env.PAYWALL_TEST_LINES}"}, "", false},
		"not ASCII":           {&Auth{Type: "bearer", Token: "canary-ü"}, "", false},
		"header with a colon": {&Auth{Type: "header", Name: "X-Api-Key:", Value: "canary"}, "", false},
		"header not for this": {&Auth{Type: "header", Name: "idempotency-key", Value: "canary"}, "", false},
		"header host":         {&Auth{Type: "header", Name: "HOST", Value: "canary"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var got http.Header
			url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			f := &Facilitator{URL: url, Auth: c.auth}
			err := f.Provision(ctx)
			defer func() { _ = f.Cleanup() }()
			if c.want == "" {
				if err == nil {
					t.Fatal("no error")
				}
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error holds a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.auth != nil && c.auth.inTheClear() != c.clear {
				t.Errorf("in the clear: %t, want %t", !c.clear, c.clear)
			}
			_, _ = f.Verify(t.Context(), request())
			field, value, _ := strings.Cut(c.want, ": ")
			if !strings.HasPrefix(got.Get(field), value) {
				t.Errorf("%s: %q, want %q", field, got.Get(field), value)
			}
			for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key", "Accept-Encoding"} {
				if _, sent := got[name]; sent {
					t.Errorf("%s is sent", name)
				}
			}
		})
	}
}

// Neither credentials nor the payment show, whatever a facilitator echoes.
// Threat 75.
func TestNothingSecretShows(t *testing.T) {
	const token = "canary-token-1234"
	echo := func(r *http.Request) string {
		b, _ := io.ReadAll(r.Body)
		text, _ := json.Marshal(r.Header.Get("Authorization") + " " + canaryPayment + " " + string(b))
		return string(text)
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"plain": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, echo(r)) },
		"reason": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"isValid":false,"success":false,"invalidReason":`+echo(r)+`}`)
		},
		"reasons": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"isValid":false,"success":false,"errorReason":`+echo(r)+`}`)
		},
		"message": func(w http.ResponseWriter, r *http.Request) {
			e := echo(r)
			_, _ = io.WriteString(w, `{"isValid":false,"success":false,"errorReason":"x","invalidMessage":`+e+`,"errorMessage":`+e+`}`)
		},
		"payer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"isValid":true,"success":true,"payer":`+echo(r)+`}`)
		},
		"member": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"isValid":`+echo(r)+`,"success":`+echo(r)+`,"kinds":`+echo(r)+`}`)
		},
		"name": func(w http.ResponseWriter, r *http.Request) {
			e := echo(r)
			_, _ = io.WriteString(w, `{`+e+`:1,`+e+`:2}`)
		},
		"status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, echo(r)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://"+token+".example/"+token)
			w.WriteHeader(307)
		},
		"extension header": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Extension-Responses", r.Header.Get("Authorization")+canaryPayment)
			_, _ = io.WriteString(w, `{}`)
		},
		"broken HTTP": func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 "+r.Header.Get("Authorization")+" "+canaryPayment+"\r\n\r\n")
				_ = c.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, logs := provision(t, &Facilitator{
				URL:  serve(t, http.HandlerFunc(answer)),
				Auth: &Auth{Type: "bearer", Token: token},
			})
			v, err := f.Verify(t.Context(), request())
			s := f.Settle(t.Context(), request())
			_, serr := f.Supported(t.Context())
			shown := []string{v.Detail, v.Reason, s.Detail, s.Reason, s.Transaction, s.Amount, logText(logs)}
			for _, err := range []error{err, serr} {
				if err != nil {
					shown = append(shown, err.Error())
				}
			}
			for _, text := range shown {
				if strings.Contains(text, "canary") {
					t.Errorf("this shows: %s", text)
				}
				if strings.ContainsAny(text, "\r\x00") || len(text) > 2000 {
					t.Errorf("this is not fit for a log: %q", text)
				}
			}
		})
	}
}

// What only the header of an answer says is for the log.
func TestExtensionResponsesAreLogged(t *testing.T) {
	f, logs := provision(t, &Facilitator{URL: serve(t, &fixed{
		status: 200,
		header: http.Header{"Extension-Responses": {"eyJiYXphYXIiOnsic3RhdHVzIjoic3VjY2VzcyJ9fQ=="}},
		body:   `{"isValid":true}`,
	})})
	if _, err := f.Verify(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if text := logText(logs); !strings.Contains(text, `{"bazaar":{"status":"success"}}`) {
		t.Errorf("log: %s", text)
	}
}
