package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// upstream is the site behind the gateway: it knows nothing of payments and
// counts who comes through.
type upstream struct {
	*httptest.Server
	hits atomic.Int64
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hit := u.hits.Add(1)
		for _, name := range []string{"X-Payment", "Payment-Signature"} {
			if r.Header.Get(name) != "" {
				http.Error(w, name+" reached the upstream", http.StatusTeapot)
				return
			}
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if charge := r.URL.Query().Get("charge"); charge != "" {
			w.Header().Set("Settlement-Overrides", `{"amount":"`+charge+`"}`)
		}
		fmt.Fprint(w, answer(hit, r.Method, r.URL.RequestURI(), string(body)))
	}))
	t.Cleanup(u.Close)
	return u
}

// answer is what the upstream says to its n-th request. It is no JSON, so that
// axios hands it on as it came.
func answer(hit int64, method, uri, body string) string {
	return fmt.Sprintf("answer %d to %s %s: <%s> ☕\n", hit, method, uri, body)
}
