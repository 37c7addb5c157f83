package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a request asks for is also in its body: order 123 and order 456 go to one
// address. So the digest of the body is taken while it streams to the upstream, and
// recorded with the purchase. Only where a payer has another order at the same
// address, in flight or owed, is the beginning of a body read before its turn, to
// tell whether it is the same.

// maxAhead is how much of a body is read, and held, before the upstream asks for it.
const maxAhead = 64 << 10

// unread is recorded, after the declared length, in place of the digest of a body that
// the upstream had not read to its end when it answered: whether another one of that
// length is the same, nobody can tell.
const unread = "unread"

// headMark is between the digest of a long body and that of its first maxAhead bytes.
const headMark = " head="

// beginsLike says whether the body begins like a long one that has a digest.
func (b *Body) beginsLike(digest string) bool {
	_, head, long := strings.Cut(digest, headMark)
	begin := b.beginning()
	return long && begin != nil && *begin == head
}

// IsUnread says whether a recorded digest stands for a body that was not read to its end.
func IsUnread(digest string) bool { return strings.HasSuffix(digest, unread) }

// NoBody is the digest of a request without a body.
var NoBody = digestOf(sha256.New(), 0)

func digestOf(sum hash.Hash, n int64) string {
	return strconv.FormatInt(n, 10) + " sha256=" + hex.EncodeToString(sum.Sum(nil))
}

// Body is a request's body on its way to the upstream. Who reads ahead, to know what it
// is, takes turns with the upstream, which gets everything in its order and without
// waiting longer than the client lets it wait.
type Body struct {
	io.ReadCloser
	declared int64         // its length, or -1
	noAhead  bool          // nobody may read it beside its request
	limited  bool          // its request reads it ahead, before anything is sold
	atEnd    func()        // called once, when the upstream has all of it; or nil
	turn     chan struct{} // holds one: the right to read from the client
	end      sync.Once
	ended    chan struct{} // closed when sum is known
	sum      atomic.Pointer[string]
	head     atomic.Pointer[string] // the digest of the first maxAhead bytes

	mu    sync.Mutex
	hash  hash.Hash
	count int64
	ahead []byte // read and not yet asked for
	err   error  // of the end, for the upstream after what was read ahead
	ours  bool   // the error is: the body was closed before it came
	done  bool   // the body was closed
}

// newBody puts itself around the body of a request; nil if there is none.
func newBody(r *http.Request) *Body {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	b := &Body{
		ReadCloser: r.Body, declared: r.ContentLength, turn: make(chan struct{}, 1),
		hash: sha256.New(), ended: make(chan struct{}),
	}
	b.turn <- struct{}{}
	return b
}

// WrapBody puts the bounds and the digest around the body of a request. What reads
// ahead may outlive a wait for it, and the server adds trailers to the request when a
// body ends: so the request that goes on has a map of its own for them, which only the
// upstream's reading fills.
func WrapBody(r *http.Request, upload *Upload) (*http.Request, *Body) {
	if upload == nil {
		return r, nil
	}
	limited := isLimited(r.Body)
	r = r.WithContext(r.Context())
	r.Body = upload
	b := newBody(r)
	if b == nil {
		return r, nil
	}
	// What was announced is within the limit, or the request were not here.
	b.noAhead = limited && r.ContentLength < 0
	b.limited = b.noAhead && r.Method != http.MethodConnect
	if arriving := r.Trailer; len(arriving) > 0 {
		own := arriving.Clone()
		r.Trailer = own
		b.atEnd = func() { maps.Copy(own, arriving) }
	}
	r.Body = b
	return r, b
}

// isLimited says whether Caddy's request_body limits a body: where it is too long, the
// reading changes the header of the answer, so nobody may read it in another goroutine.
func isLimited(body io.ReadCloser) bool {
	if t, ok := body.(*trailers); ok {
		body = t.ReadCloser
	}
	return strings.Contains(fmt.Sprintf("%T", body), "requestbody.")
}

// Read implements io.Reader, for the upstream.
func (b *Body) Read(p []byte) (int, error) {
	n, err := b.next(p)
	if errors.Is(err, io.EOF) && b.atEnd != nil {
		b.atEnd()
		b.atEnd = nil
	}
	return n, err
}

func (b *Body) next(p []byte) (int, error) {
	if n, err, ok := b.pending(p); ok {
		return n, err
	}
	<-b.turn
	defer func() { b.turn <- struct{}{} }()
	if n, err, ok := b.pending(p); ok { // read ahead meanwhile
		return n, err
	}
	n, err := b.ReadCloser.Read(p)
	b.note(p[:n], err)
	return n, err
}

// pending hands out what was read ahead, and then the error that came after it.
func (b *Body) pending(p []byte) (n int, err error, ok bool) { //nolint:revive,staticcheck // the error is one of the body
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ahead) > 0 {
		n = copy(p, b.ahead)
		b.ahead = b.ahead[n:]
		return n, nil, true
	}
	return 0, b.err, b.err != nil
}

// note takes what was read into the digest.
func (b *Body) note(p []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if missing := maxAhead - b.count; missing > 0 && int64(len(p)) >= missing {
		_, _ = b.hash.Write(p[:missing])
		b.count += missing
		head := hex.EncodeToString(b.hash.Sum(nil)[:16])
		b.head.Store(&head)
		p = p[missing:]
	}
	_, _ = b.hash.Write(p)
	b.count += int64(len(p))
	b.err, b.ours = err, b.done
	if errors.Is(err, io.EOF) || err == nil && b.declared >= 0 && b.count == b.declared {
		b.end.Do(func() {
			sum := digestOf(b.hash, b.count)
			if head := b.head.Load(); head != nil {
				sum += headMark + *head
			}
			b.sum.Store(&sum)
			close(b.ended)
		})
	}
}

// Digest returns the digest of a body that was read to its end; nil is no body.
func (b *Body) Digest() (string, bool) {
	if b == nil {
		return NoBody, true
	}
	if sum := b.sum.Load(); sum != nil {
		return *sum, true
	}
	return "", false
}

// Record is what the ledger keeps of the body of a request that was answered. Over
// HTTP/3 a GET may have a body until somebody has looked: that takes no time.
func (b *Body) Record(ctx context.Context, method string) string {
	if b != nil && b.declared < 0 && (method == http.MethodGet || method == http.MethodHead) {
		ctx, cancel := context.WithTimeout(ctx, LookWithin)
		defer cancel()
		_ = b.ReadAhead(ctx)
	}
	if sum, ok := b.Digest(); ok {
		return sum
	}
	return strconv.FormatInt(b.declared, 10) + " " + unread
}

// Broken says whether the client has broken the body off.
func (b *Body) Broken() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && !errors.Is(b.err, io.EOF) && !b.ours
}

// Close implements io.Closer. The upstream closes a body that it does not want.
func (b *Body) Close() error {
	b.mu.Lock()
	b.done = true
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

// LookWithin is how long an answer waits for the end of a body that should have none.
const LookWithin = 100 * time.Millisecond

// ErrTooLong: a body cannot be told from others before the upstream has it.
var ErrTooLong = errors.New("the body is too long to be read ahead")

// ReadAhead reads the body to its end, at most maxAhead bytes, which the upstream
// gets later. It waits for the client until ctx ends; a read that it has begun goes on
// without it.
func (b *Body) ReadAhead(ctx context.Context) error {
	if _, ok := b.Digest(); ok {
		return nil
	}
	if b.noAhead {
		return ErrTooLong
	}
	done := make(chan error, 1)
	go func() { done <- b.fill(ctx) }()
	select {
	case err := <-done:
		return err
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ReadLimited reads ahead what has a limit and no declared length, before its request
// is sold: nobody else may do it later. The bounds of an upload bound it.
func (b *Body) ReadLimited() error {
	if b == nil || !b.limited {
		return nil
	}
	if err := b.fill(context.Background()); !errors.Is(err, ErrTooLong) {
		return err
	}
	return nil
}

// fill reads ahead, a piece in each turn.
func (b *Body) fill(ctx context.Context) error {
	piece := make([]byte, 4<<10)
	for {
		select {
		case <-b.turn:
		case <-b.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		more, err := b.fillOnce(piece)
		b.turn <- struct{}{}
		if !more {
			return err
		}
	}
}

// fillOnce reads a piece, for whoever has the turn, and says whether to go on.
func (b *Body) fillOnce(piece []byte) (more bool, err error) {
	b.mu.Lock()
	read, held, failed := b.count, len(b.ahead), b.err
	b.mu.Unlock()
	_, known := b.Digest()
	switch {
	case known, errors.Is(failed, io.EOF):
		return false, nil
	case failed != nil:
		return false, failed
	case read >= maxAhead, held >= maxAhead:
		return false, ErrTooLong
	}
	n, err := b.ReadCloser.Read(piece)
	b.mu.Lock()
	b.ahead = append(b.ahead, piece[:n]...)
	b.mu.Unlock()
	b.note(piece[:n], err)
	return true, nil
}

// Drain reads the body to its end and forgets it, if it is no longer than the one
// that has a digest: there is no upstream for it. It returns its digest.
func (b *Body) Drain(like string) (digest string, ok bool) {
	length, _, _ := strings.Cut(like, " ")
	if n, err := strconv.ParseInt(length, 10, 64); err == nil {
		_, _ = io.CopyN(io.Discard, b, n+1)
	}
	return b.Digest()
}

// Likeness says whether two requests have the same body.
type Likeness int

const (
	Same Likeness = iota
	Different
	Unclear // it would take too long to tell
)

// Like compares the body with one that the ledger knows. It reads ahead for that, within
// a time; the error says why that did not tell.
func (b *Body) Like(ctx context.Context, recorded string, within time.Duration) (Likeness, error) {
	switch {
	case recorded == "":
		return Same, nil // nothing that is charged has come of it
	case !b.couldBe(recorded):
		return Different, nil
	case IsUnread(recorded):
		return Unclear, nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := b.ReadAhead(ctx)
	switch digest, ok := b.Digest(); {
	case ok && digest == recorded:
		return Same, nil
	case ok, errors.Is(err, ErrTooLong) && !b.beginsLike(recorded):
		return Different, nil
	}
	return Unclear, err
}

// Compare tells two bodies in flight apart. What it reads ahead of theirs may hold
// theirs up for a moment, and never for longer than its client does.
func (b *Body) Compare(ctx context.Context, theirs *Body) Likeness {
	if b.length() >= 0 && theirs.length() >= 0 && b.length() != theirs.length() {
		return Different
	}
	return CompareSketches(b.Sketch(ctx), theirs.Sketch(ctx))
}

// Sketch is what can be said of the body by reading its beginning, until ctx ends: its
// digest, which has that of a long one's beginning in it, or that alone; "" if the client
// lets us wait.
func (b *Body) Sketch(ctx context.Context) string {
	if b != nil {
		_ = b.ReadAhead(ctx) // what is known after that counts
	}
	if digest, ok := b.Digest(); ok {
		return digest
	}
	if head := b.beginning(); head != nil {
		return headMark + *head
	}
	return ""
}

// CompareSketches tells two bodies apart by their sketches.
func CompareSketches(a, b string) Likeness {
	if a == "" || b == "" {
		return Unclear
	}
	whole, head, _ := strings.Cut(a, headMark)
	other, begin, _ := strings.Cut(b, headMark)
	switch {
	case head != begin: // a short body has none
		return Different
	case whole == "" || other == "":
		return Unclear
	case whole != other:
		return Different
	}
	return Same
}

// beginning is the digest of the first maxAhead bytes, or nil if so many have not come.
func (b *Body) beginning() *string {
	if b == nil {
		return nil
	}
	return b.head.Load()
}

// length is the declared length of a body, or -1.
func (b *Body) length() int64 {
	if b == nil {
		return 0
	}
	return b.declared
}

// couldBe says whether a body of this length can have a digest.
func (b *Body) couldBe(digest string) bool {
	length, _, _ := strings.Cut(digest, " ")
	return b.length() < 0 || length == "-1" || length == strconv.FormatInt(b.length(), 10)
}
