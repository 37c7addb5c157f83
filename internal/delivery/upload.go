package delivery

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A payer who sends the request's body drop by drop must not keep a payment
// claimed, and an upstream waiting, that nobody has paid for yet. The bounds are
// those that Apache's mod_reqtimeout has by default.
const (
	// UploadGrace is how long the upstream may wait for a body in all before
	// anything is paid.
	UploadGrace = 20 * time.Second
	// uploadRate is the bytes of the body that earn another second.
	uploadRate = 500
)

// Upload is a request's body while nothing is paid. Only the time in which the
// payer is waited for counts, and not what the upstream takes between two reads.
type Upload struct {
	io.ReadCloser
	grace    time.Duration
	waited   time.Duration
	bytes    int64
	deadline func() // ends the read
	upstream atomic.Pointer[context.CancelFunc]
	state    atomic.Int32

	mu   sync.Mutex
	over bool // the request is, and nothing of its connection may be touched
}

// The states of an upload. It leaves bounded once.
const (
	uploadBounded int32 = iota
	uploadFree
	uploadCut
)

// BoundUpload bounds the body of a request; nil if there is none. grace is
// UploadGrace, except in tests.
func BoundUpload(w http.ResponseWriter, r *http.Request, grace time.Duration) *Upload {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	return &Upload{ReadCloser: r.Body, grace: grace, deadline: func() {
		// Where it cannot be set the server's own time-outs end the read.
		//nolint:bodyclose // a controller is no response
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}}
}

// OnCut calls cancel too when the body takes too long; nil has no body.
func (u *Upload) OnCut(cancel context.CancelFunc) {
	if u != nil {
		u.upstream.Store(&cancel)
	}
}

// cut ends the read, and the request to the upstream.
func (u *Upload) cut() {
	if !u.state.CompareAndSwap(uploadBounded, uploadCut) {
		return
	}
	if cancel := u.upstream.Load(); cancel != nil {
		(*cancel)()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.over {
		u.deadline()
	}
}

// End is called before the request is over: a timer, or a read ahead, may outlive it.
func (u *Upload) End() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
}

// Read implements io.Reader.
func (u *Upload) Read(p []byte) (int, error) {
	if u.state.Load() == uploadFree {
		return u.ReadCloser.Read(p)
	}
	start := time.Now()
	timer := time.AfterFunc(u.grace+time.Duration(u.bytes/uploadRate)*time.Second-u.waited, u.cut)
	n, err := u.ReadCloser.Read(p)
	timer.Stop()
	u.waited += time.Since(start)
	u.bytes += int64(n)
	return n, err
}

// Free lifts the bounds; false if it is too late. Nil has none.
func (u *Upload) Free() bool {
	return u == nil || u.state.CompareAndSwap(uploadBounded, uploadFree) || u.state.Load() == uploadFree
}

// WasCut says whether the body took too long.
func (u *Upload) WasCut() bool { return u != nil && u.state.Load() == uploadCut }
