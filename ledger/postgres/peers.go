package postgres

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Gateways ask each other through the database: LISTEN and NOTIFY. Whoever gets no answer
// waits and sells nothing, so a message that gets lost, or a gateway that cannot listen,
// costs payers time and nothing else.

const (
	// echoWithin is how long its own message may take that shows that messages arrive.
	echoWithin = 5 * time.Second
	// listenAgain is how long after a failure it is tried again to listen.
	listenAgain = time.Second
	// maxAnswering is how many questions are answered at a time, and answerWithin how long
	// an answer may take.
	maxAnswering = 64
	answerWithin = 1500 * time.Millisecond
	// maxMessage is how long a message may be, in bytes; the database takes 8000.
	maxMessage = 7900
)

// message is what gateways say to each other: a question about a payment, or an answer.
type message struct {
	Of      ledger.Key `json:"of,omitempty"`
	Name    string     `json:"name"` // of the question
	Answer  []byte     `json:"answer,omitempty"`
	Answers bool       `json:"answers,omitempty"`
}

// peers is what a ledger needs to ask and to answer.
type peers struct {
	answering chan struct{} // holds one for each question that is being answered

	mu     sync.Mutex
	hears  bool // messages arrive
	answer func(ctx context.Context, key ledger.Key) []byte
	asked  map[string]chan []byte // by the names of questions
}

// AnswerPeers implements ledger.Peers.
func (l *Ledger) AnswerPeers(answer func(ctx context.Context, key ledger.Key) []byte) {
	l.peers.mu.Lock()
	defer l.peers.mu.Unlock()
	l.peers.answer = answer
}

// AskHolder implements ledger.Peers.
func (l *Ledger) AskHolder(ctx context.Context, key ledger.Key) ([]byte, error) {
	p, name, heard := &l.peers, rand.Text(), make(chan []byte, 1)
	p.mu.Lock()
	if !p.hears {
		p.mu.Unlock()
		return nil, errDeaf
	}
	p.asked[name] = heard
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.asked, name)
	}()
	if err := l.tell(ctx, message{Of: key, Name: name}); err != nil {
		return nil, err
	}
	patience := time.NewTimer(answerWithin)
	defer patience.Stop()
	select {
	case answer := <-heard:
		return answer, nil
	case <-patience.C:
		return nil, ledger.ErrNoAnswer
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tell sends a message to all who share the ledger.
func (l *Ledger) tell(ctx context.Context, m message) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("asking another gateway: %w", err)
	}
	if len(text) > maxMessage {
		return fmt.Errorf("asking another gateway: a message of %d bytes", len(text))
	}
	// A message need not be on the disk: to wait for that would hold up all others. Who sends
	// one waits for the commits of all in this database who do.
	if _, err := l.pool.Exec(ctx, `SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', $3, true), pg_notify($1, $2)`,
		l.channel(), string(text), milliseconds(lockPatience)); err != nil {
		return fmt.Errorf("asking another gateway: %w", unavailable(err))
	}
	return nil
}

// channel is where the messages of this ledger go: a database may have several.
func (l *Ledger) channel() string {
	sum := sha256.Sum256(append([]byte("paywall peers"), *l.queryKey.Load()...))
	return "paywall_" + hex.EncodeToString(sum[:12])
}

// listen hears what others say until the ledger is closed. It begins with the first
// claim: who only reads holds nothing.
func (l *Ledger) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-l.quit
		cancel()
	}()
	told := false
	for ctx.Err() == nil {
		begun := time.Now()
		err := l.listenOnce(ctx)
		l.peers.mu.Lock()
		l.peers.hears = false
		l.peers.mu.Unlock()
		if deaf := time.Since(begun) < 2*echoWithin; deaf && !told && ctx.Err() == nil {
			told = true
			l.logger.Warn("this gateway does not hear others that share its ledger, so their payers wait where it could tell them that they need not: "+
				"is a pooler between? Give the ledger a way to the database itself", zap.String("error", plain(err)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

// errDeaf is for a gateway to which no messages come.
var errDeaf = errors.New("the database delivers no messages")

// listenOnce hears what others say over one connection, until that ends.
func (l *Ledger) listenOnce(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, l.config.ConnConfig.Copy())
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	first, cancel := context.WithTimeout(ctx, echoWithin)
	defer cancel()
	if _, err := conn.Exec(first, "LISTEN "+pgx.Identifier{l.channel()}.Sanitize()); err != nil {
		return err
	}
	// Its own message shows that they come.
	echo := message{Name: rand.Text(), Answers: true}
	if err := l.tell(first, echo); err != nil {
		return err
	}
	for within := first; ; {
		n, err := conn.WaitForNotification(within)
		switch {
		case err != nil && ctx.Err() == nil && first.Err() != nil && within == first:
			return errDeaf
		case err != nil:
			return err
		}
		var m message
		if json.Unmarshal([]byte(n.Payload), &m) != nil {
			continue // somebody else's
		}
		if m.Name == echo.Name {
			within = ctx
		}
		l.hear(ctx, m)
	}
}

// hear takes a message.
func (l *Ledger) hear(ctx context.Context, m message) {
	p := &l.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hears {
		p.hears = true
		l.logger.Info("this gateway hears others that share its ledger")
	}
	switch heard, answer := p.asked[m.Name], p.answer; {
	case m.Answers:
		select {
		case heard <- m.Answer:
		default: // nobody waits for it, or it is the second one
		}
	case answer == nil:
	default:
		select {
		case p.answering <- struct{}{}:
			go l.reply(ctx, m, answer)
		default: // who asks waits for no answer, and comes again
		}
	}
}

// reply answers a question.
func (l *Ledger) reply(ctx context.Context, m message, answer func(ctx context.Context, key ledger.Key) []byte) {
	defer func() { <-l.peers.answering }()
	defer func() {
		if v := recover(); v != nil {
			l.logger.Error("a bug in the answer to another gateway", zap.Any("panic", v), zap.Stack("stack"))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if says := answer(ctx, m.Of); says != nil {
		_ = l.tell(ctx, message{Name: m.Name, Answer: says, Answers: true}) // else nobody answers
	}
}

// Interface guard
var _ ledger.Peers = (*Ledger)(nil)
