package botauth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers/fetch"
	"github.com/caddy-paywall/caddy-paywall/crawlers/recent"
)

const domain = "bots.example"

var (
	now  = time.Unix(1_800_000_000, 0)
	here = netip.MustParseAddr("192.0.2.7")
)

func always(string) bool { return true }

// signer signs as an agent does, without the code that verifies.
type signer struct{ private ed25519.PrivateKey }

func newSigner(name string) signer {
	seed := sha256.Sum256([]byte(name))
	return signer{ed25519.NewKeyFromSeed(seed[:])}
}

func (s signer) public() ed25519.PublicKey { return s.private.Public().(ed25519.PublicKey) }

func (s signer) jwk() string {
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q,"use":"sig"}`, Thumbprint(s.public()), base64.RawURLEncoding.EncodeToString(s.public()))
}

// params are those of a signature that is good for a minute.
func (s signer) params(more string) string {
	return fmt.Sprintf(`;created=%d;expires=%d;keyid="%s";tag="web-bot-auth"%s`, now.Unix(), now.Add(time.Minute).Unix(), Thumbprint(s.public()), more)
}

// sign makes a message whose signature covers so many components, given as lines of the
// base.
func (s signer) sign(agent, params string, lines ...string) *Message {
	var covered []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ": ")
		covered = append(covered, name)
	}
	input := "(" + strings.Join(covered, " ") + ")" + params
	base := strings.Join(lines, "\n") + "\n" + `"@signature-params": ` + input
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(s.private, []byte(base)))
	return &Message{Method: http.MethodGet, Scheme: "https", Host: "shop.example", Target: "/a/b?q=1", Header: http.Header{
		headerAgent: {agent}, headerInput: {"sig=" + input}, headerSignature: {"sig=:" + signature + ":"},
	}}
}

// message is one as it should be.
func (s signer) message(more string) *Message {
	return s.sign(`sig="https://`+domain+`"`, s.params(more), `"@authority": shop.example`, `"signature-agent";key="sig": "https://`+domain+`"`)
}

// newVerifier makes one whose directories are all at a server of the test.
func newVerifier(t testing.TB, serve http.HandlerFunc) *Verifier {
	t.Helper()
	server := httptest.NewUnstartedServer(serve)
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	client := fetch.NewClient(0)
	client.Timeout = 2 * time.Second
	client.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	v := New(t.Context(), client)
	v.now = func() time.Time { return now }
	return v
}

func directoryOf(signers ...signer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var keys []string
		for _, s := range signers {
			keys = append(keys, s.jwk())
		}
		w.Header().Set("Content-Type", mediaType)
		_, _ = io.WriteString(w, `{"keys":[`+strings.Join(keys, ",")+`]}`)
	}
}

// TestVectors: those of the draft.
func TestVectors(t *testing.T) {
	content, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, X, Agent, Input, Signature string
		Verified                         bool
	}
	if err := json.Unmarshal(content, &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(err)
	}
	for _, vector := range vectors {
		t.Run(vector.Name, func(t *testing.T) {
			v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", mediaType)
				fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":%q}]}`, vector.X)
			})
			v.now = func() time.Time { return time.Unix(1735689601, 0) }
			v.longest, v.testKeys = 200*365*24*time.Hour, true
			m := &Message{Method: http.MethodGet, Scheme: "https", Host: "example.com", Target: "/path/to/resource", Header: http.Header{
				headerInput: {vector.Input}, headerSignature: {vector.Signature},
			}}
			if vector.Agent != "" {
				m.Header[headerAgent] = []string{vector.Agent}
			}
			domain, err := v.Verify(t.Context(), m, here, always)
			if (err == nil) != vector.Verified || vector.Verified && domain != "signature-agent.test" {
				t.Errorf("%q %v", domain, err)
			}
			m.Host = "example.org"
			if domain, err := v.Verify(t.Context(), m, here, always); err == nil {
				t.Errorf("for another host: %q", domain)
			}
			m.Host, v.testKeys = "example.com", false
			if domain, err := v.Verify(t.Context(), m, here, always); err == nil {
				t.Errorf("with a key that everybody has: %q", domain)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	bot, other := newSigner("bot"), newSigner("other")
	agent := `sig="https://` + domain + `"`
	member := `"signature-agent";key="sig": "https://` + domain + `"`
	for name, tc := range map[string]struct {
		message  *Message
		verified bool
	}{
		"as it should be":   {bot.message(""), true},
		"with an algorithm": {bot.message(`;alg="ed25519"`), true},
		"the older form":    {bot.sign(`"https://`+domain+`"`, bot.params(""), `"@authority": shop.example`, `"signature-agent": "https://`+domain+`"`), true},
		"a slash":           {bot.sign(`sig="https://`+domain+`/"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="sig": "https://`+domain+`/"`), true},
		"with a type":       {bot.sign(agent+";type=directory", bot.params(""), `"@authority": shop.example`, member+";type=directory"), true},
		"the whole URL":     {bot.sign(agent, bot.params(""), `"@target-uri": https://shop.example/a/b?q=1`, member), true},
		"all components": {bot.sign(agent, bot.params(""), `"@method": GET`, `"@authority": shop.example`, `"@scheme": https`, `"@path": /a/b`, `"@query": ?q=1`,
			`"@request-target": /a/b?q=1`, `"@query-param";name="q": 1`, member), true},
		"a member of another name": {bot.sign(`x="https://`+domain+`"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="x": "https://`+domain+`"`), true},

		"the whole header":                     {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"signature-agent": `+agent), true},
		"the whole header of two, and its own": {bot.sign(agent+`, b="https://x.example"`, bot.params(""), `"@authority": shop.example`, `"signature-agent": `+agent+`, b="https://x.example"`), true},

		"the whole header of two, and none its own": {bot.sign(`a="https://`+domain+`", b="https://x.example"`, bot.params(""), `"@authority": shop.example`, `"signature-agent": a="https://`+domain+`", b="https://x.example"`), false},
		"another's signature":                       {with(other.message(""), headerInput, bot.message("").Header.Get(headerInput)), false},
		"a key that is not there":                   {other.message(""), false},
		"another path":                              {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"@path": /other`, member), false},
		"no host":                                   {bot.sign(agent, bot.params(""), `"@path": /a/b`, member), false},
		"nobody's name":                             {bot.sign(agent, bot.params(""), `"@authority": shop.example`), false},
		"no name in the older form":                 {bot.sign(`"https://`+domain+`"`, bot.params(""), `"@authority": shop.example`), false},
		"two names, none its own":                   {bot.sign(`a="https://`+domain+`", b="https://x.example"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="a": "https://`+domain+`"`, `"signature-agent";key="b": "https://x.example"`), false},
		"another type":                              {bot.sign(agent+";type=jwks_uri", bot.params(""), `"@authority": shop.example`, member+";type=jwks_uri"), false},
		"a path":                                    {bot.sign(`sig="https://`+domain+`/x"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="sig": "https://`+domain+`/x"`), false},
		"a port":                                    {bot.sign(`sig="https://`+domain+`:8443"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="sig": "https://`+domain+`:8443"`), false},
		"a user":                                    {bot.sign(`sig="https://u@`+domain+`"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="sig": "https://u@`+domain+`"`), false},
		"not https":                                 {bot.sign(`sig="http://`+domain+`"`, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="sig": "http://`+domain+`"`), false},
		"a member that is not there":                {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"signature-agent";key="y": "https://`+domain+`"`), false},
		"covered twice":                             {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"@authority": shop.example`, member), false},
		"an unknown component":                      {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"@status": 200`, member), false},
		"an unknown parameter":                      {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"accept";bs: :YQ==:`, member), false},
		"a header that is not there":                {bot.sign(agent, bot.params(""), `"@authority": shop.example`, `"accept": a`, member), false},
		"another purpose":                           {bot.sign(agent, strings.Replace(bot.params(""), tag, "other", 1), `"@authority": shop.example`, member), false},
		"another algorithm":                         {bot.message(`;alg="hmac-sha256"`), false},
		"a long nonce":                              {bot.message(`;nonce="` + strings.Repeat("a", 300) + `"`), false},
		"no created":                                {bot.sign(agent, strings.Replace(bot.params(""), "created", "x", 1), `"@authority": shop.example`, member), false},
		"no expires":                                {bot.sign(agent, strings.Replace(bot.params(""), "expires", "x", 1), `"@authority": shop.example`, member), false},
		"a keyid that is no thumbprint":             {bot.sign(agent, strings.Replace(bot.params(""), `keyid="`, `keyid="x`, 1), `"@authority": shop.example`, member), false},
		"short":                                     {with(bot.message(""), headerSignature, "sig=:YWJj:"), false},
		"no dictionary":                             {with(bot.message(""), headerSignature, "\x00("), false},
		"a giant signature":                         {with(bot.message(""), headerSignature, "sig=:"+strings.Repeat("A", 100_000)+":"), false},
		"a giant input":                             {with(bot.message(""), headerInput, "sig=("+strings.Repeat(`"@authority" `, 10_000)+")"), false},
		"a giant name":                              {with(bot.message(""), headerAgent, `sig="https://`+strings.Repeat("a", 100_000)+`.example"`), false},
		"many signatures":                           {with(bot.message(""), headerInput, strings.Repeat(`a=();x,b=();x,c=();x,d=();x,`, 1)+"e=()"), false},
		"no signature in it":                        {with(with(bot.message(""), headerInput, ""), headerSignature, ""), false},
		"an empty header":                           {with(bot.message(""), headerAgent, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, directoryOf(bot))
			got, err := v.Verify(t.Context(), tc.message, here, always)
			if (err == nil) != tc.verified || tc.verified && got != domain {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

func with(m *Message, name, value string) *Message {
	m.Header[name] = []string{value}
	return m
}

// TestTimes: a signature is good while it says so, and for no more than a day.
func TestTimes(t *testing.T) {
	bot := newSigner("bot")
	v := newVerifier(t, directoryOf(bot))
	for name, tc := range map[string]struct {
		created, expires time.Duration
		verified         bool
	}{
		"now":               {0, time.Minute, true},
		"for a day":         {0, 24 * time.Hour, true},
		"a clock ahead":     {20 * time.Second, time.Minute, true},
		"a clock behind":    {-time.Minute, -20 * time.Second, true},
		"from the future":   {time.Minute, time.Hour, false},
		"expired":           {-time.Hour, -time.Minute, false},
		"for two days":      {0, 48 * time.Hour, false},
		"ends before it is": {10 * time.Second, 5 * time.Second, false},
	} {
		params := fmt.Sprintf(`;created=%d;expires=%d;keyid="%s";tag="web-bot-auth"`, now.Add(tc.created).Unix(), now.Add(tc.expires).Unix(), Thumbprint(bot.public()))
		m := bot.sign(`sig="https://`+domain+`"`, params, `"@authority": shop.example`, `"signature-agent";key="sig": "https://`+domain+`"`)
		if _, err := v.Verify(t.Context(), m, here, always); (err == nil) != tc.verified {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNonceIsUsedFromOneAddress: who has read a signed request cannot send it from
// elsewhere. Who asks again with the same headers to pay can.
func TestNonceIsUsedFromOneAddress(t *testing.T) {
	bot := newSigner("bot")
	v := newVerifier(t, directoryOf(bot))
	m := bot.message(`;nonce="abc"`)
	for i, tc := range []struct {
		from     netip.Addr
		verified bool
	}{{here, true}, {here, true}, {here.Next(), false}, {here, true}} {
		if _, err := v.Verify(t.Context(), m, tc.from, always); (err == nil) != tc.verified {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestNoncesAreBounded: many more than there is room for leave the latest.
func TestNoncesAreBounded(t *testing.T) {
	n := nonces{recent.NewMap[[16]byte, usedNonce](maxNonces)}
	for i := range 100_000 {
		n.use(&signature{nonce: fmt.Sprint(i), expires: now.Add(time.Hour)}, here, now)
	}
	if size := n.used.Len(); size > 2*maxNonces {
		t.Errorf("%d are kept", size)
	}
	if n.use(&signature{nonce: "99999", expires: now.Add(time.Hour)}, here.Next(), now) {
		t.Error("the last one is forgotten")
	}
}

// TestDirectoriesThatHarm: what cannot be a directory verifies nobody, and holds up a
// request no longer than it waits.
func TestDirectoriesThatHarm(t *testing.T) {
	bot := newSigner("bot")
	good := directoryOf(bot)
	inner := httptest.NewTLSServer(good)
	defer inner.Close()
	for name, serve := range map[string]http.HandlerFunc{
		"redirects to loopback": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, http.StatusFound) },
		"redirects to itself": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/x" {
				good(w, r)
				return
			}
			http.Redirect(w, r, "/x", http.StatusFound)
		},
		"is 10 MB": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, `{"keys":[`+bot.jwk()+`],"x":"`+strings.Repeat("a", 10<<20)+`"}`)
		},
		"is a zip bomb": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b")
		},
		"is HTML": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `{"keys":[`+bot.jwk()+`]}`)
		},
		"says no": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"keys":[`+bot.jwk()+`]}`)
		},
		"is no JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, `{"keys":`)
		},
		"has no keys": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, `{"keys":[]}`)
		},
		"has too many": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(bot.jwk()+",", 150)+bot.jwk()+`]}`)
		},
		"hangs": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drips": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		},
		"closes": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); serve(w, r) })
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				if got, err := v.Verify(ctx, bot.message(""), here, always); err == nil {
					t.Errorf("%q is verified", got)
				}
				cancel()
			}
			if n := asked.Load(); n > 1 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// TestDirectoriesAreNotAskedForStrangers: a domain that nobody wants is left alone, and so
// is one whose signature could not be good anyway.
func TestDirectoriesAreNotAskedForStrangers(t *testing.T) {
	var asked atomic.Int64
	bot := newSigner("bot")
	v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); directoryOf(bot)(w, r) })
	if _, err := v.Verify(t.Context(), bot.message(""), here, func(string) bool { return false }); err == nil {
		t.Error("verified")
	}
	if _, err := v.Verify(t.Context(), with(bot.message(""), headerSignature, "sig=:YWJj:"), here, always); err == nil {
		t.Error("verified")
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// TestDirectoriesAreBounded: neither more of them are kept than there is room for, nor
// more fetched at once.
func TestDirectoriesAreBounded(t *testing.T) {
	var now, most atomic.Int64
	bot := newSigner("bot")
	v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		directoryOf(bot)(w, r)
	})
	for i := range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = v.directories.key(ctx, fmt.Sprintf("d%d.example", i), Thumbprint(bot.public()))
	}
	if n := len(v.directories.known); n > maxKnown {
		t.Errorf("%d are kept", n)
	}
	if n := most.Load(); n > maxFetches {
		t.Errorf("%d at once", n)
	}
}

// TestKeysRotate: a new key is found, one that was taken away is not, and an outage takes
// none away.
func TestKeysRotate(t *testing.T) {
	old, young := newSigner("old"), newSigner("young")
	var serve atomic.Pointer[http.HandlerFunc]
	set := func(h http.HandlerFunc) { serve.Store(&h) }
	set(directoryOf(old))
	v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) { (*serve.Load())(w, r) })
	at := now
	v.now = func() time.Time { return at }
	has := func(s signer) bool {
		_, err := v.directories.key(t.Context(), domain, Thumbprint(s.public()))
		return err == nil
	}
	if !has(old) || has(young) {
		t.Fatal("at first")
	}
	set(directoryOf(old, young))
	if has(young) {
		t.Error("asked again at once")
	}
	at = at.Add(2 * missingFor)
	if !has(young) {
		t.Error("a new key is not found")
	}
	set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	at = at.Add(25 * time.Hour)
	for range 3 {
		at = at.Add(2 * failedFor)
		if !has(old) || !has(young) {
			t.Error("an outage takes keys away")
		}
		waitForFetch(v)
	}
	set(directoryOf(young))
	at = at.Add(2 * failedFor)
	has(old) // which has the directory fetched
	waitForFetch(v)
	if has(old) || !has(young) {
		t.Error("a key that was taken away is good")
	}
	set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	at = at.Add(keptFor + time.Hour)
	if has(young) {
		t.Error("a directory that was down for a week is good")
	}
}

func waitForFetch(v *Verifier) {
	v.directories.mu.Lock()
	under := v.directories.known[domain].under
	v.directories.mu.Unlock()
	if under != nil {
		<-under
	}
}

func TestParseDirectory(t *testing.T) {
	bot := newSigner("bot")
	for body, want := range map[string]int{
		`{"keys":[` + bot.jwk() + `]}`:                                                                1,
		`{"keys":[` + bot.jwk() + `,` + newSigner("b").jwk() + `]}`:                                   2,
		`{"keys":[{"kty":"RSA","n":"x"}]}`:                                                            0,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"short"}]}`:                                        0,
		`{"keys":[` + strings.Replace(bot.jwk(), `"sig"`, `"enc"`, 1) + `]}`:                          0,
		`{"keys":[` + strings.Replace(bot.jwk(), Thumbprint(bot.public()), testKey, 1) + `]}`:         0,
		`{"keys":[` + strings.Replace(bot.jwk(), `"use"`, `"nbf":1.5e9,"exp":1.9e12,"use"`, 1) + `]}`: 1,
		`{"keys":null}`: -1, `[]`: -1, ``: -1, `<html>`: -1,
	} {
		keys, err := parseDirectory([]byte(body))
		if want < 0 && err == nil || want >= 0 && len(keys) != want {
			t.Errorf("%s: %d keys, %v", body, len(keys), err)
		}
	}
}

// TestKeysHaveTimes: a key is used between nbf and exp.
func TestKeysHaveTimes(t *testing.T) {
	bot := newSigner("bot")
	for times, verified := range map[string]bool{
		fmt.Sprintf(`"nbf":%d,"exp":%d`, now.Unix()-9, now.Unix()+9):                 true,
		fmt.Sprintf(`"nbf":%d,"exp":%d`, now.UnixMilli()-9000, now.UnixMilli()+9000): true,
		fmt.Sprintf(`"exp":%d`, now.Unix()-9):                                        false,
		fmt.Sprintf(`"nbf":%d`, now.Unix()+9):                                        false,
	} {
		v := newVerifier(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, `{"keys":[`+strings.Replace(bot.jwk(), `"use"`, times+`,"use"`, 1)+`]}`)
		})
		if _, err := v.Verify(t.Context(), bot.message(""), here, always); (err == nil) != verified {
			t.Errorf("%s: %v", times, err)
		}
	}
}

func FuzzSignatures(f *testing.F) {
	bot := newSigner("bot")
	m := bot.message(`;nonce="abc"`)
	f.Add(m.Header.Get(headerAgent), m.Header.Get(headerInput), m.Header.Get(headerSignature))
	f.Add(`"https://a.example"`, `a=("@authority";x=1 "b";key="c")`, `a=:YQ==:`)
	f.Add(`a;b=1`, `a=1`, `a=?1`)
	v := newVerifier(f, directoryOf(bot))
	f.Fuzz(func(t *testing.T, agent, input, signature string) {
		m := &Message{Method: http.MethodGet, Scheme: "https", Host: "shop.example", Target: "/", Header: http.Header{
			headerAgent: {agent}, headerInput: {input}, headerSignature: {signature},
		}}
		Claims(m.Header)
		wanted := func(d string) bool { return d == domain }
		if got, err := v.Verify(t.Context(), m, here, wanted); err == nil && got != domain {
			t.Errorf("%q", got)
		}
	})
}

func FuzzDirectory(f *testing.F) {
	f.Add([]byte(`{"keys":[` + newSigner("bot").jwk() + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":1,"exp":-1e400}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseDirectory(body)
		if err != nil && len(keys) > 0 {
			t.Error("keys beside an error")
		}
		for id, k := range keys {
			if Thumbprint(k.public) != id {
				t.Errorf("%s is another key", id)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	bot := newSigner("bot")
	v := newVerifier(b, directoryOf(bot))
	m := bot.message("")
	if _, err := v.Verify(b.Context(), m, here, always); err != nil {
		b.Fatal(err)
	}
	message := []byte("a message")
	signature := ed25519.Sign(bot.private, message)
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			ed25519.Verify(bot.public(), message, signature)
		}
	})
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), m, here, always); err != nil {
				b.Fatal(err)
			}
		}
	})
	short := with(bot.message(""), headerSignature, "sig=:YWJj:")
	b.Run("refused before it is verified", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = v.Verify(b.Context(), short, here, always)
		}
	})
}
