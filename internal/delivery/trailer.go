package delivery

import (
	"io"
	"net/http"
)

// RemoveTrailers removes what a client sends as trailers under some names. They
// come with the end of the body, and net/http adds them to the request then,
// those too that were not announced.
func RemoveTrailers(r *http.Request, ours func(name string) bool) {
	if len(r.Trailer) == 0 || r.Body == nil {
		return
	}
	t := &trailers{r.Body, r.Trailer, ours}
	t.remove()
	r.Body = t
}

// trailers is a body with trailers.
type trailers struct {
	io.ReadCloser
	trailer http.Header
	ours    func(name string) bool
}

func (t *trailers) remove() {
	for name := range t.trailer {
		if t.ours(name) {
			delete(t.trailer, name)
		}
	}
}

// Read implements io.Reader.
func (t *trailers) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.remove()
	}
	return n, err
}
