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
// its status line until AtStatus has decided what becomes of it, and from then
// on either passes everything through, unbuffered, or swallows it.
//
// Nothing is buffered: a held answer waits in WriteHeader, and the upstream
// with it.
type ResponseWriter struct {
	*caddyhttp.ResponseWriterWrapper

	// AtStatus is called once, with the final status, before anything of the
	// answer has left. False keeps the answer back for good; then the header is
	// as it was before the upstream ran, and the caller writes its own answer.
	AtStatus func(status int, header http.Header) (pass bool)

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

	// Payer ends when the payer leaves.
	Payer context.Context

	// Cut: nothing more is sent. A file that the system sends in one piece still goes
	// to its end.
	Cut atomic.Bool

	// All: the connection has taken as many bytes of the goods as were declared.
	All atomic.Bool

	Status   int           // 0 until the status line
	Goods    bool          // it stands for something that was done or given; set by AtStatus
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

func NewResponseWriter(w http.ResponseWriter, passInformational bool, atStatus func(int, http.Header) bool) *ResponseWriter {
	return &ResponseWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		AtStatus:              atStatus,
		passInformational:     passInformational,
		before:                w.Header().Clone(),
		Payer:                 context.Background(),
		declared:              -1,
	}
}

// WriteHeader implements http.ResponseWriter.
func (a *ResponseWriter) WriteHeader(status int) {
	if a.Status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if a.passInformational {
			header := a.Header()
			all := header.Clone()
			RemoveReceipts(header)
			a.ResponseWriterWrapper.WriteHeader(status)
			clear(header) // the final answer may still say what is used
			maps.Copy(header, all)
		}
		return
	}
	a.Status = status
	// Refused until decided: a panic in AtStatus must not open the gate for a
	// deferred write.
	a.refused = true
	if !a.AtStatus(status, a.Header()) {
		a.RestoreHeader()
		return
	}
	a.refused = false
	if a.Goods {
		a.declared = declaredLength(a.Header())
		a.All.Store(a.declared == 0)
	}
	a.look()
	if a.Recorder != nil {
		a.Recorder.Begin(status, a.Header())
	}
	a.begun = time.Now()
	a.ResponseWriterWrapper.WriteHeader(status)
}

// wait notes how long the payer took to take a part of the answer.
func (a *ResponseWriter) wait(d time.Duration) {
	a.waited += d
	a.longest = max(a.longest, d)
}

// stalled says whether the payer has let the answer wait, so that it may be his doing
// when the upstream gave up: for long at once, or most of the time and for very long. One
// who reads all the time over a slow line, from an upstream that breaks, has not.
func (a *ResponseWriter) stalled() bool {
	return a.longest >= longWait || a.waited >= longRead && 2*a.waited >= time.Since(a.begun)
}

// RestoreHeader undoes what the upstream did to the header.
func (a *ResponseWriter) RestoreHeader() {
	h := a.Header()
	clear(h)
	maps.Copy(h, a.before)
}

// Write implements http.ResponseWriter.
func (a *ResponseWriter) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.refused {
		if a.Aside != nil {
			if a.Aside.write(p); a.Aside.over {
				a.AsideOver()
			}
		}
		// An error here would make reverse_proxy panic; the upstream is stopped
		// by its context instead.
		return len(p), nil
	}
	if a.Recorder != nil {
		a.Recorder.write(p)
		if a.writeErr != nil && !a.Recorder.over {
			return len(p), nil // for the copy alone
		}
	}
	n, err := a.send(p)
	if err != nil && a.Recorder != nil && !a.Recorder.over {
		return len(p), nil
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (a *ResponseWriter) ReadFrom(r io.Reader) (int64, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.refused && a.Aside == nil:
		return 0, errHeld // nobody who calls this panics about it
	case a.refused, a.Recorder != nil:
		return io.Copy(writerOnly{a}, r)
	}
	if err := a.stopped(); err != nil {
		return 0, err
	}
	a.look()
	n, err := a.ResponseWriterWrapper.ReadFrom(r)
	a.count(n, err)
	if err != nil {
		a.offered += goodPart // nobody says how much of the last piece has left
	}
	return n, err
}

// send sends a part of the body.
func (a *ResponseWriter) send(p []byte) (int, error) {
	if err := a.stopped(); err != nil {
		return 0, err
	}
	a.look()
	since := time.Now()
	n, err := a.ResponseWriterWrapper.Write(p)
	a.wait(time.Since(since))
	a.count(int64(n), err)
	a.offered += int64(len(p) - n)
	return n, err
}

// writerOnly hides ReadFrom, for which io.Copy looks.
type writerOnly struct{ io.Writer }

// look notes whether the payer is still there. Bytes that a connection takes
// after that arrive nowhere.
func (a *ResponseWriter) look() { a.lost = a.lost || a.Payer.Err() != nil }

// stopped says whether nothing more may be sent.
func (a *ResponseWriter) stopped() error {
	if !a.Cut.Load() {
		return nil
	}
	a.count(0, errCut)
	return errCut
}

func (a *ResponseWriter) count(n int64, err error) {
	a.written += n
	a.offered += n
	if a.declared >= 0 && a.written == a.declared {
		a.All.Store(true)
	}
	if err != nil && a.writeErr == nil {
		a.writeErr = err
	}
}

// FlushError implements what http.ResponseController looks for. A flush before
// the status line stands for a 200, as everywhere in net/http.
func (a *ResponseWriter) FlushError() error {
	a.WriteHeader(http.StatusOK)
	if a.refused {
		return nil
	}
	since := time.Now()
	//nolint:bodyclose // a controller is no response
	err := http.NewResponseController(a.ResponseWriterWrapper.ResponseWriter).Flush()
	a.wait(time.Since(since))
	if err != nil && a.Recorder != nil && !a.Recorder.over && !errors.Is(err, http.ErrNotSupported) {
		a.count(0, err)
		return nil
	}
	return err
}

// Flush implements http.Flusher.
func (a *ResponseWriter) Flush() { _ = a.FlushError() }

var (
	errHeld = errors.New("the answer is held back: it is not paid for")
	errCut  = errors.New("the claim on the payment is lost")
)

// Hijack implements what http.ResponseController looks for. Only an answer
// that passed its status line (101) can become a tunnel.
func (a *ResponseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.refused || a.Status == 0 && !a.passInformational {
		return nil, nil, errHeld
	}
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(a.ResponseWriterWrapper.ResponseWriter).Hijack()
	if a.Hijacked = a.Hijacked || err == nil; a.Hijacked && a.Status == 0 {
		a.Status = http.StatusSwitchingProtocols // the handler writes it itself
	}
	return conn, brw, err
}

// Complete says whether all of the answer was taken by the connection, as far
// as a server can know.
func (a *ResponseWriter) Complete(method string) bool {
	if a.Status == 0 || a.refused || a.writeErr != nil || a.lost {
		return false
	}
	if a.Hijacked || a.Status == http.StatusSwitchingProtocols {
		return a.Hijacked
	}
	if method == http.MethodHead || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		return true
	}
	if declared := a.Header().Get("Content-Length"); declared != "" {
		n, err := strconv.ParseInt(declared, 10, 64)
		return err == nil && n == a.written
	}
	// Its end is not sent before the handler returns: who has left by now has
	// not seen it.
	return a.Payer.Err() == nil
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
func (a *ResponseWriter) EndedByPayer() bool {
	left := a.Payer.Err() != nil || a.writeErr != nil || a.stalled()
	if a.refused || a.Cut.Load() || !left {
		return false
	}
	if a.Status >= 300 && a.Status < 400 {
		return true
	}
	declared, err := strconv.ParseInt(a.Header().Get("Content-Length"), 10, 64)
	return err != nil || a.offered >= goodPart || 10*a.offered >= declared
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
