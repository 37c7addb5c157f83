// Package delivery is what stands between an upstream and a payer while goods go out: the
// response writer that holds an answer at its status line, the copy of an answer, the
// digest and the deadline of a request's body, and the headers that go neither way. It
// knows no purchase.
package delivery

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// ResponseWriter is the response writer that the upstream sees. It holds the answer at
// its status line until atStatus has decided what becomes of it, and from then
// on either passes everything through, unbuffered, or swallows it.
//
// Nothing is buffered: a held answer waits in WriteHeader, and the upstream
// with it.
type ResponseWriter struct {
	*caddyhttp.ResponseWriterWrapper

	// atStatus is called once, with the final status, before anything of the
	// answer has left. False keeps the answer back for good; then the header is
	// as it was before the upstream ran, and the caller writes its own answer.
	atStatus func(status int, header http.Header) (pass bool)

	// passInformational lets 1xx answers through; they may come from another
	// goroutine before the status line, so nothing else here looks at them.
	passInformational bool

	// Recorder, if not nil, keeps a copy of what passes, and while it can, the
	// upstream does not learn that the payer has left.
	Recorder *Recorder

	// Aside keeps a copy of what is swallowed, if not nil.
	Aside     *Recorder
	AsideOver func() // called when there is too much for a copy

	// before is the header as it was when the upstream was started.
	before http.Header

	// payer ends when the payer leaves.
	payer context.Context

	// Cut: nothing more is sent. A file that the system sends in one piece still goes
	// to its end.
	Cut atomic.Bool

	// All: the connection has taken as many bytes of the goods as were declared.
	All atomic.Bool

	Status   int           // 0 until the status line
	Goods    bool          // it stands for something that was done or given; set by atStatus
	declared int64         // length of the goods, or -1
	lost     bool          // the payer had left before a part of the answer was sent
	refused  bool          // the answer is being swallowed
	written  int64         // bytes of the body that the connection took
	offered  int64         // and those that it may have taken a part of
	writeErr error         // the first error of the connection
	waited   time.Duration // in all, for the payer to take what was sent
	longest  time.Duration // at once
	begun    time.Time     // when the status line was sent
	Hijacked bool
}

// NewResponseWriter holds an answer for w until atStatus has decided. payer ends when the
// payer leaves.
func NewResponseWriter(payer context.Context, w http.ResponseWriter, passInformational bool, atStatus func(int, http.Header) bool) *ResponseWriter {
	return &ResponseWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		atStatus:              atStatus,
		passInformational:     passInformational,
		before:                w.Header().Clone(),
		payer:                 payer,
		declared:              -1,
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *ResponseWriter) WriteHeader(status int) {
	if w.Status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if w.passInformational {
			header := w.Header()
			all := header.Clone()
			RemoveReceipts(header)
			w.ResponseWriterWrapper.WriteHeader(status)
			clear(header) // the final answer may still say what is used
			maps.Copy(header, all)
		}
		return
	}
	w.Status = status
	// Refused until decided: a panic in atStatus must not open the gate for a
	// deferred write.
	w.refused = true
	if !w.atStatus(status, w.Header()) {
		w.RestoreHeader()
		return
	}
	w.refused = false
	if w.Goods {
		w.declared = declaredLength(w.Header())
		w.All.Store(w.declared == 0)
	}
	w.look()
	if w.Recorder != nil {
		w.Recorder.Begin(status, w.Header())
	}
	w.begun = time.Now()
	w.ResponseWriterWrapper.WriteHeader(status)
}

// wait notes how long the payer took to take a part of the answer.
func (w *ResponseWriter) wait(d time.Duration) {
	w.waited += d
	w.longest = max(w.longest, d)
}

// stalled says whether the payer has let the answer wait, so that it may be his doing
// when the upstream gave up: for long at once, or most of the time and for very long. One
// who reads all the time over a slow line, from an upstream that breaks, has not.
func (w *ResponseWriter) stalled() bool {
	return w.longest >= longWait || w.waited >= longRead && 2*w.waited >= time.Since(w.begun)
}

// RestoreHeader undoes what the upstream did to the header.
func (w *ResponseWriter) RestoreHeader() {
	h := w.Header()
	clear(h)
	maps.Copy(h, w.before)
}

// Write implements http.ResponseWriter.
func (w *ResponseWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.refused {
		if w.Aside != nil {
			if w.Aside.write(p); w.Aside.over {
				w.AsideOver()
			}
		}
		// An error here would make reverse_proxy panic; the upstream is stopped
		// by its context instead.
		return len(p), nil
	}
	if w.Recorder != nil {
		w.Recorder.write(p)
		if w.writeErr != nil && !w.Recorder.over {
			return len(p), nil // for the copy alone
		}
	}
	n, err := w.send(p)
	if err != nil && w.Recorder != nil && !w.Recorder.over {
		return len(p), nil
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (w *ResponseWriter) ReadFrom(r io.Reader) (int64, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.refused && w.Aside == nil:
		return 0, errHeld // nobody who calls this panics about it
	case w.refused, w.Recorder != nil:
		return io.Copy(writerOnly{w}, r)
	}
	if err := w.stopped(); err != nil {
		return 0, err
	}
	w.look()
	n, err := w.ResponseWriterWrapper.ReadFrom(r)
	w.count(n, err)
	if err != nil {
		w.offered += goodPart // nobody says how much of the last piece has left
	}
	return n, err
}

// send sends a part of the body.
func (w *ResponseWriter) send(p []byte) (int, error) {
	if err := w.stopped(); err != nil {
		return 0, err
	}
	w.look()
	since := time.Now()
	n, err := w.ResponseWriterWrapper.Write(p)
	w.wait(time.Since(since))
	w.count(int64(n), err)
	w.offered += int64(len(p) - n)
	return n, err
}

// writerOnly hides ReadFrom, for which io.Copy looks.
type writerOnly struct{ io.Writer }

// look notes whether the payer is still there. Bytes that a connection takes
// after that arrive nowhere.
func (w *ResponseWriter) look() { w.lost = w.lost || w.payer.Err() != nil }

// stopped says whether nothing more may be sent.
func (w *ResponseWriter) stopped() error {
	if !w.Cut.Load() {
		return nil
	}
	w.count(0, errCut)
	return errCut
}

func (w *ResponseWriter) count(n int64, err error) {
	w.written += n
	w.offered += n
	if w.declared >= 0 && w.written == w.declared {
		w.All.Store(true)
	}
	if err != nil && w.writeErr == nil {
		w.writeErr = err
	}
}

// FlushError implements what http.ResponseController looks for. A flush before
// the status line stands for a 200, as everywhere in net/http.
func (w *ResponseWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if w.refused {
		return nil
	}
	since := time.Now()
	//nolint:bodyclose // a controller is no response
	err := http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Flush()
	w.wait(time.Since(since))
	if err != nil && w.Recorder != nil && !w.Recorder.over && !errors.Is(err, http.ErrNotSupported) {
		w.count(0, err)
		return nil
	}
	return err
}

// Flush implements http.Flusher.
func (w *ResponseWriter) Flush() { _ = w.FlushError() }

var (
	errHeld = errors.New("the answer is held back: it is not paid for")
	errCut  = errors.New("the claim on the payment is lost")
)

// Hijack implements what http.ResponseController looks for. Only an answer
// that passed its status line (101) can become a tunnel.
func (w *ResponseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.refused || w.Status == 0 && !w.passInformational {
		return nil, nil, errHeld
	}
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Hijack()
	if w.Hijacked = w.Hijacked || err == nil; w.Hijacked && w.Status == 0 {
		w.Status = http.StatusSwitchingProtocols // the handler writes it itself
	}
	return conn, brw, err
}

// Complete says whether all of the answer was taken by the connection, as far
// as a server can know.
func (w *ResponseWriter) Complete(method string) bool {
	if w.Status == 0 || w.refused || w.writeErr != nil || w.lost {
		return false
	}
	if w.Hijacked || w.Status == http.StatusSwitchingProtocols {
		return w.Hijacked
	}
	if method == http.MethodHead || w.Status == http.StatusNoContent || w.Status == http.StatusNotModified {
		return true
	}
	if declared := w.Header().Get("Content-Length"); declared != "" {
		n, err := strconv.ParseInt(declared, 10, 64)
		return err == nil && n == w.written
	}
	// Its end is not sent before the handler returns: who has left by now has
	// not seen it.
	return w.payer.Err() == nil
}

// declaredLength is the length of a body as a header declares it, or -1.
func declaredLength(header http.Header) int64 {
	n, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// EndedByPayer says whether the payer ended the answer, when he had a good part of
// it: a tenth, or what fits into a few packets, or the header of what has no declared
// length. A redirect is all in its header. Who reads so slowly that the upstream gives
// up has ended it too.
func (w *ResponseWriter) EndedByPayer() bool {
	left := w.payer.Err() != nil || w.writeErr != nil || w.stalled()
	if w.refused || w.Cut.Load() || !left {
		return false
	}
	if w.Status >= 300 && w.Status < 400 {
		return true
	}
	declared, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	return err != nil || w.offered >= goodPart || 10*w.offered >= declared
}

const (
	// goodPart is how many bytes of an answer are worth something, however long it is.
	goodPart = 64 << 10
	// longWait is how long a payer may let an answer wait at once, and longRead in all,
	// before it is his doing that it broke off; see stalled.
	longWait = time.Second
	longRead = 10 * time.Second
)

// Interface guards
var (
	_ http.ResponseWriter = (*ResponseWriter)(nil)
	_ http.Flusher        = (*ResponseWriter)(nil)
	_ http.Hijacker       = (*ResponseWriter)(nil)
	_ http.Pusher         = (*ResponseWriter)(nil)
	_ io.ReaderFrom       = (*ResponseWriter)(nil)
)
