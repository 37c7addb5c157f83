package protocols

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestOtherNamesOfAPageCostWhatItCosts: a page in another format, and one that the
// query names, cost what the page does, and what a line says otherwise is as it says.
func TestOtherNamesOfAPageCostWhatItCosts(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{
		Prices: `
			price /quote $0.01
			price /users/*/export $0.01
			price /articles/* $0.01
			price /blog/posts/* $0.01
			free /quote.css *.js`,
		Block: `
			handle_path /app/* {
				{gate}
				reverse_proxy {up}
			}
			handle {
				{gate}
				reverse_proxy {up}
			}`,
	})
	c := w.Gated.Client(t, "h1")
	for target, status := range map[string]int{
		"/quote":                     402,
		"/quote.json":                402,
		"/quote.anything?x=1":        402,
		"/quote%2Ehtml":              402,
		"/quote.tar.gz":              402,
		"/quote.js":                  402, // `*.js` is less specific
		"/quote.css":                 200,
		"/quoted.json":               200,
		"/site.js":                   200,
		"/users/1/export.csv":        402,
		"/users/1/export.csv/x":      200,
		"/articles.json":             402,
		"/app/quote.json":            402,
		"/?/articles/1":              402,
		"/?%2Farticles/1":            402,
		"/?%2farticles%2f1":          402,
		"/index.php?/articles/1":     402,
		"/index.php?/articles/1&x=1": 402,
		"/index.php?/quote&x=1":      402,
		"/index.php?/quote?x=1":      402,
		"/index.php?//quote.json":    402,
		"/index.php??/quote":         402,
		"/index.php%3f/quote":        402,
		"/index.php%253F/quote?x=1":  402,
		"/blog/?/posts/1":            402,
		"/blog/index.php?/posts/1":   402,
		"/app/?/articles/1":          402,
		"/app/blog?/posts/1":         402,
		"/?/about":                   200,
		"/?x=/quote":                 200, // the name of such a parameter is the application's
		"/?x&/quote":                 200,
		"/blog?/about&x=/quote":      200,
	} {
		if res := c.Send(w.Request(http.MethodGet, target)); res.StatusCode != status {
			t.Errorf("%s: want %d, got %v", target, status, res)
		}
	}
	for value, status := range map[string]int{"/?/articles/1": 402, "/blog/?/posts/1&x": 402, "/?/about": 200} {
		if res := c.Send(w.Request(http.MethodGet, "/", "X-Original-URL", value)); res.StatusCode != status {
			t.Errorf("%s: want %d, got %v", value, status, res)
		}
	}
}
