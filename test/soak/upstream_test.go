package soak

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// upstream is the site that sells. It counts, by path, how often it was started
// and how often it gave all it had.
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	starts map[string]int
	gave   map[string][]time.Time
	acts   map[string][]act // what it does, one per start; then it behaves
}

// act is a way to answer. False: it did not come to the end of its goods.
type act func(w http.ResponseWriter, r *http.Request) bool

func newUpstream(t testing.TB) *upstream {
	u := &upstream{starts: map[string]int{}, gave: map[string][]time.Time{}, acts: map[string][]act{}}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(func() {
		u.CloseClientConnections() // for those who never answer
		u.Close()
	})
	return u
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	path := r.URL.Path
	u.mu.Lock()
	u.starts[path]++
	do := give
	if acts := u.acts[path]; len(acts) > 0 {
		do, u.acts[path] = acts[0], acts[1:]
	}
	u.mu.Unlock()
	if do(w, r) {
		u.mu.Lock()
		u.gave[path] = append(u.gave[path], time.Now())
		u.mu.Unlock()
	}
}

// give hands out the goods of a path.
func give(w http.ResponseWriter, r *http.Request) bool {
	_, err := io.WriteString(w, goods(r.URL.Path))
	return err == nil
}

// goods are what a path holds: some fit into the first packet, some do not, and
// some are sent in chunks.
func goods(path string) string {
	size := 100
	for _, c := range path {
		size = (size*31 + int(c)) % 20_000
	}
	return "goods of " + path + "\n" + strings.Repeat("x", size)
}

// will sets what the next starts of a path do.
func (u *upstream) will(path string, acts ...act) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.acts[path] = acts
}

// started says how often a path was started.
func (u *upstream) started(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.starts[path]
}

// given says when all of a path's goods were handed out.
func (u *upstream) given(path string) []time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.gave[path])
}
