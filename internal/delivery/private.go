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
func (f *PrivateWriter) Mark() {
	if f.marked {
		return
	}
	f.marked = true
	header := f.Header()
	KeepPrivate(header)
	if f.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{f.varies})
	}
}

// WriteHeader implements http.ResponseWriter.
func (f *PrivateWriter) WriteHeader(status int) {
	if status >= 200 {
		f.Mark()
	}
	f.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (f *PrivateWriter) Write(p []byte) (int, error) {
	f.Mark()
	return f.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (f *PrivateWriter) ReadFrom(r io.Reader) (int64, error) {
	f.Mark()
	return f.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError implements what http.ResponseController looks for.
func (f *PrivateWriter) FlushError() error {
	f.Mark()
	//nolint:bodyclose // a controller is no response
	return http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (f *PrivateWriter) Flush() { _ = f.FlushError() }

// Hijack implements what http.ResponseController looks for. What is said on the
// connection is no answer that a cache keeps.
func (f *PrivateWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Hijack()
	f.marked = f.marked || err == nil
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
