package interop

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
)

// TestWebBotAuthSignsForUs: an agent that signs with the npm package web-bot-auth, as it
// comes, is verified, in both forms of Signature-Agent. For another path or host, or with
// another agent's name, it is not.
func TestWebBotAuthSignsForUs(t *testing.T) {
	const dictionary, bare = `sig1="https://chatgpt.com"`, `"https://chatgpt.com"`
	for name, tc := range map[string]struct {
		agent      string
		components []string
	}{
		"dictionary": {dictionary, nil},
		"bare":       {bare, nil},
		"all parts":  {dictionary, []string{"@method", "@target-uri", "@authority", "@scheme", "@path", "@query", "signature-agent"}},
	} {
		t.Run(name, func(t *testing.T) {
			agent := tc.agent
			var checker *crawlers.Checker
			var who crawlers.Client
			site := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				who = checker.Who(r, netip.MustParseAddr("192.0.2.7"))
			}))
			defer site.Close()
			out, err := exec.CommandContext(t.Context(), node(t), append([]string{filepath.Join("agents", "sign.mjs"), http.MethodGet, site.URL + "/a?b=c", agent}, tc.components...)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			var signed struct {
				Headers   map[string]string
				Directory json.RawMessage
			}
			if err := json.Unmarshal(out, &signed); err != nil {
				t.Fatal(err)
			}
			checker = checkerWith(t, signed.Directory)
			ask := func(path, host, agent string) crawlers.Client {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = host
				for name, value := range signed.Headers {
					r.Header.Set(name, value)
				}
				r.Header.Set("Signature-Agent", agent)
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				return who
			}
			if got := ask("/a?b=c", "", agent); got.Name != "ChatGPT Agent" || got.Proof != crawlers.Verified {
				t.Errorf("%+v", got)
			}
			if got := ask("/other", "", agent); len(tc.components) > 0 && got.Proof == crawlers.Verified {
				t.Errorf("for another path: %+v", got)
			}
			if got := ask("/a?b=c", "other.example", agent); got.Proof == crawlers.Verified {
				t.Errorf("for another host: %+v", got)
			}
			if got := ask("/a?b=c", "", `sig1="https://agent.bot.goog"`); got.Proof == crawlers.Verified {
				t.Errorf("with another agent's name: %+v", got)
			}
		})
	}
}

// checkerWith makes one for which each domain has the same directory.
func checkerWith(t *testing.T, directory []byte) *crawlers.Checker {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/http-message-signatures-directory+json")
		_, _ = w.Write(directory)
	}))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	c, err := crawlers.New(crawlers.Config{}, crawlers.Environment{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Destruct() })
	return c
}
