package fetch_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/crawlers/fetch"
)

// TestLeadsIntoNoOtherNetwork: neither by an address, nor by a name that means one, nor by
// a redirect.
func TestLeadsIntoNoOtherNetwork(t *testing.T) {
	asked := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
	for _, url := range []string{server.URL, "https://localhost:" + port, "https://[::1]:" + port, "https://[::ffff:127.0.0.1]:" + port, "https://0.0.0.0:" + port, "http://127.0.0.1:" + port, "file:///etc/passwd", "https://"} {
		if _, err := fetch.Get(t.Context(), fetch.NewClient(3), url, "*/*", 1000); err == nil || len(url) > len("https://") && strings.HasPrefix(url, "https://") && !strings.Contains(err.Error(), "public internet") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if asked {
		t.Error("it was reached")
	}
}

func TestIsPublic(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "66.249.66.1": true, "2606:4700::1": true, "2a00:1450::1": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "192.0.2.1": false, "198.18.0.1": false, "240.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false, "2001:db8::1": false, "fec0::1": false, "fe80::1%eth0": false,
	} {
		if got := fetch.IsPublic(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestRedirects: so many as are allowed, and to https only.
func TestRedirects(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/once":
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer server.Close()
	for path, want := range map[string]bool{"/": true, "/once": true, "/loop": false, "/plain": false} {
		client := fetch.NewClient(3)
		client.Transport = server.Client().Transport
		if _, err := fetch.Get(t.Context(), client, server.URL+path, "*/*", 1000); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	none := fetch.NewClient(0)
	none.Transport = server.Client().Transport
	if _, err := fetch.Get(t.Context(), none, server.URL+"/once", "*/*", 1000); err == nil {
		t.Error("it follows a redirect")
	}
}
