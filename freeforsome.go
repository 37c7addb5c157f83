package paywall

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
)

// freeForSome is the response writer of an answer that is free because a matcher
// said so. It edits the header at the status line and lets everything else pass.
type freeForSome struct {
	*caddyhttp.ResponseWriterWrapper
	varies string
	marked bool
}

func (f *freeForSome) mark() {
	if f.marked {
		return
	}
	f.marked = true
	header := f.Header()
	delivery.KeepPrivate(header)
	if f.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{f.varies})
	}
}

// WriteHeader implements http.ResponseWriter.
func (f *freeForSome) WriteHeader(status int) {
	if status >= 200 {
		f.mark()
	}
	f.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (f *freeForSome) Write(p []byte) (int, error) {
	f.mark()
	return f.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (f *freeForSome) ReadFrom(r io.Reader) (int64, error) {
	f.mark()
	return f.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError implements what http.ResponseController looks for.
func (f *freeForSome) FlushError() error {
	f.mark()
	//nolint:bodyclose // a controller is no response
	return http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (f *freeForSome) Flush() { _ = f.FlushError() }

// Hijack implements what http.ResponseController looks for. What is said on the
// connection is no answer that a cache keeps.
func (f *freeForSome) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Hijack()
	f.marked = f.marked || err == nil
	return conn, brw, err
}

// Interface guards
var (
	_ http.ResponseWriter = (*freeForSome)(nil)
	_ http.Flusher        = (*freeForSome)(nil)
	_ http.Hijacker       = (*freeForSome)(nil)
	_ http.Pusher         = (*freeForSome)(nil)
	_ io.ReaderFrom       = (*freeForSome)(nil)
)
