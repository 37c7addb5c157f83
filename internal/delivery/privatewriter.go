package delivery

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// PrivateWriter is the response writer of an answer that is free because a matcher said
// so. It keeps it from shared caches at the status line, and lets everything else pass.
type PrivateWriter struct {
	*caddyhttp.ResponseWriterWrapper
	varies string
	marked bool
}

// NewPrivateWriter returns one for an answer that depends on request headers (a list, or
// "" where it is not known on which).
func NewPrivateWriter(w http.ResponseWriter, varies string) *PrivateWriter {
	return &PrivateWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, varies: varies}
}

// Mark edits the header, if that was not done yet.
func (w *PrivateWriter) Mark() {
	if w.marked {
		return
	}
	w.marked = true
	header := w.Header()
	keepPrivate(header)
	if w.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{w.varies})
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *PrivateWriter) WriteHeader(status int) {
	if status >= 200 {
		w.Mark()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *PrivateWriter) Write(p []byte) (int, error) {
	w.Mark()
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (w *PrivateWriter) ReadFrom(r io.Reader) (int64, error) {
	w.Mark()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError implements what http.ResponseController looks for.
func (w *PrivateWriter) FlushError() error {
	w.Mark()
	//nolint:bodyclose // a controller is no response
	return http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (w *PrivateWriter) Flush() { _ = w.FlushError() }

// Hijack implements what http.ResponseController looks for. What is said on the
// connection is no answer that a cache keeps.
func (w *PrivateWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Hijack()
	w.marked = w.marked || err == nil
	return conn, brw, err
}

// Interface guards
var (
	_ http.ResponseWriter = (*PrivateWriter)(nil)
	_ http.Flusher        = (*PrivateWriter)(nil)
	_ http.Hijacker       = (*PrivateWriter)(nil)
	_ http.Pusher         = (*PrivateWriter)(nil)
	_ io.ReaderFrom       = (*PrivateWriter)(nil)
)
