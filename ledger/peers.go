package ledger

import (
	"context"
	"errors"
	"fmt"
)

// Peers is implemented by ledgers that several processes share. Of what is a matter of
// one process, such as whether a payer is still there and what the body of his request
// turned out to be, the row tells nothing: the process is asked that holds it.
type Peers interface {
	// HeldHere says whether a call to this ledger holds a row, and not perhaps one of
	// another process.
	HeldHere(key Key) bool

	// AskHolder asks all processes what they say of a row, and takes the first answer. It
	// waits for that until ctx ends, a second or two: ErrNoAnswer says that nobody answers,
	// since nobody holds it, or the holder is gone, or frozen. Every other error says that
	// nobody can be asked now.
	AskHolder(ctx context.Context, key Key) (answer []byte, err error)

	// AnswerPeers sets who is asked about rows. nil is no answer.
	// It may be called several times; the last one counts.
	AnswerPeers(answer func(ctx context.Context, key Key) []byte)
}

// ErrNoAnswer: no process answers for a row.
var ErrNoAnswer = errors.New("no other gateway answers")

var errNotShared = errors.New("the ledger is this process's own")

// HeldHere says whether a process that shares the ledger holds a row, and not perhaps
// another one. See the package postgres.
func (g *Guarded) HeldHere(key Key) bool {
	shared, ok := g.ledger.(Peers)
	return !ok || shared.HeldHere(key)
}

// AskHolder asks the other processes about a row; see Peers.
func (g *Guarded) AskHolder(ctx context.Context, key Key) (answer []byte, err error) {
	shared, ok := g.ledger.(Peers)
	if !ok {
		return nil, errNotShared
	}
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return shared.AskHolder(ctx, key)
}

// AnswerPeers sets who answers for this process; see Peers.
func (g *Guarded) AnswerPeers(answer func(ctx context.Context, key Key) []byte) {
	if shared, ok := g.ledger.(Peers); ok {
		shared.AnswerPeers(answer)
	}
}
