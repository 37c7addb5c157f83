package paywall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
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

func isUnread(digest string) bool { return strings.HasSuffix(digest, unread) }

// noBody is the digest of a request without a body.
var noBody = digestOf(sha256.New(), 0)

func digestOf(sum hash.Hash, n int64) string {
	return strconv.FormatInt(n, 10) + " sha256=" + hex.EncodeToString(sum.Sum(nil))
}

// body is a request's body on its way to the upstream. One goroutine reads it at a
// time: the upstream, or whoever must know what it is.
type body struct {
	io.ReadCloser
	declared int64         // its length, or -1
	turn     chan struct{} // holds one: the right to read
	hash     hash.Hash
	count    int64
	ahead    []byte // read and not yet asked for
	err      error  // of the end, for the upstream after what was read ahead
	sum      atomic.Pointer[string]
	ended    chan struct{} // closed when sum is known
	end      sync.Once
}

// newBody puts itself around the body of a request; nil if there is none.
func newBody(r *http.Request) *body {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	b := &body{
		ReadCloser: r.Body, declared: r.ContentLength, turn: make(chan struct{}, 1),
		hash: sha256.New(), ended: make(chan struct{}),
	}
	b.turn <- struct{}{}
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	<-b.turn
	defer func() { b.turn <- struct{}{} }()
	if len(b.ahead) > 0 {
		n := copy(p, b.ahead)
		if b.ahead = b.ahead[n:]; len(b.ahead) > 0 || b.err == nil {
			return n, nil
		}
		return n, b.err
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	b.err = err
	return n, err
}

// read reads on, for whoever has the turn.
func (b *body) read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_, _ = b.hash.Write(p[:n])
	b.count += int64(n)
	if errors.Is(err, io.EOF) || err == nil && b.declared >= 0 && b.count == b.declared {
		b.end.Do(func() {
			sum := digestOf(b.hash, b.count)
			b.sum.Store(&sum)
			close(b.ended)
		})
	}
	return n, err
}

// digest returns the digest of a body that was read to its end; nil is no body.
func (b *body) digest() (string, bool) {
	if b == nil {
		return noBody, true
	}
	if sum := b.sum.Load(); sum != nil {
		return *sum, true
	}
	return "", false
}

// record is what the ledger keeps of the body of a request that was answered. Over
// HTTP/3 a GET may have a body until somebody has looked: that takes no time.
func (b *body) record(ctx context.Context, method string) string {
	if b != nil && b.declared < 0 && (method == http.MethodGet || method == http.MethodHead) {
		ctx, cancel := context.WithTimeout(ctx, lookWithin)
		defer cancel()
		_ = b.readAhead(ctx)
	}
	if sum, ok := b.digest(); ok {
		return sum
	}
	return strconv.FormatInt(b.declared, 10) + " " + unread
}

// broken says whether the client has broken the body off.
func (b *body) broken() bool {
	if b == nil {
		return false
	}
	select {
	case <-b.turn:
		defer func() { b.turn <- struct{}{} }()
		return b.err != nil && !errors.Is(b.err, io.EOF)
	default:
		return false // it is being read
	}
}

// lookWithin is how long an answer waits for the end of a body that should have none.
const lookWithin = 100 * time.Millisecond

// errTooLong: a body cannot be told from others before the upstream has it.
var errTooLong = errors.New("the body is too long to be read ahead")

// readAhead reads the body to its end, at most maxAhead bytes, which the upstream
// gets later. It waits for another reader, and for the client, until ctx ends; a
// read that it has begun goes on without it.
func (b *body) readAhead(ctx context.Context) error {
	if _, ok := b.digest(); ok {
		return nil
	}
	if b.declared > maxAhead {
		return errTooLong
	}
	select {
	case <-b.turn:
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { b.turn <- struct{}{} }()
		done <- b.fill()
	}()
	select {
	case err := <-done:
		return err
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill reads ahead, for whoever has the turn.
func (b *body) fill() error {
	for b.err == nil {
		if _, ok := b.digest(); ok {
			return nil
		}
		if len(b.ahead) >= maxAhead {
			return errTooLong
		}
		if len(b.ahead) == cap(b.ahead) {
			b.ahead = append(b.ahead, make([]byte, 512)...)[:len(b.ahead)]
		}
		n, err := b.read(b.ahead[len(b.ahead):cap(b.ahead)])
		b.ahead, b.err = b.ahead[:len(b.ahead)+n], err
	}
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// drain reads the body to its end and forgets it, if it is no longer than the one
// that has a digest: there is no upstream for it. It returns its digest.
func (b *body) drain(like string) (digest string, ok bool) {
	length, _, _ := strings.Cut(like, " ")
	if n, err := strconv.ParseInt(length, 10, 64); err == nil {
		_, _ = io.CopyN(io.Discard, b, n+1)
	}
	return b.digest()
}

// likeness says whether two requests have the same body.
type likeness int

const (
	same likeness = iota
	different
	unclear // it would take too long to tell
)

// compare tells two bodies in flight apart. What it reads ahead of theirs may hold
// theirs up for a moment, and never for longer than its client does.
func (b *body) compare(ctx context.Context, theirs *body) likeness {
	if b.length() >= 0 && theirs.length() >= 0 && b.length() != theirs.length() {
		return different
	}
	for _, each := range []*body{b, theirs} {
		if each != nil && each.readAhead(ctx) != nil {
			return unclear
		}
	}
	mine, ok := b.digest()
	other, too := theirs.digest()
	switch {
	case !ok || !too:
		return unclear
	case mine == other:
		return same
	}
	return different
}

// length is the declared length of a body, or -1.
func (b *body) length() int64 {
	if b == nil {
		return 0
	}
	return b.declared
}

// couldBe says whether a body of this length can have a digest.
func (b *body) couldBe(digest string) bool {
	length, _, _ := strings.Cut(digest, " ")
	return b.length() < 0 || length == "-1" || length == strconv.FormatInt(b.length(), 10)
}
