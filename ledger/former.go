package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// formerWithin is how long a question to a former ledger may take: what is sold in the
	// current one waits for it, and has a bound of its own.
	formerWithin = 2 * time.Second
	// formerAgain is how long a former ledger that could not be asked is left alone.
	formerAgain = time.Second
	// testFor is the lease of a claim that is made only to learn whether it can be.
	testFor = CallWithin
)

// Placed is implemented by ledgers that can say where they are.
type Placed interface {
	// Where names the place, the kind of the ledger first, without secrets: two ledgers of
	// one place are one. It is "" where that is not known.
	Where() string
}

// Successor sells in one ledger, the current one, and knows what is in others: those in
// which was sold before, and those that a reload puts in its place. An authorization that
// another one knows is not sold again; what is owed or in doubt there is taken there.
//
// Two that sell at once, each in its own ledger and each knowing the other's, do not sell
// one authorization twice: each claims in its own first, and then looks into the other's.
// Whoever is later sees the other, and lets go.
type Successor struct {
	current Ledger
	logger  *zap.Logger
	others  atomic.Pointer[[]*former]

	mu      sync.Mutex // of what follows, and of changes of others
	answer  func(ctx context.Context, key Key) []byte
	numbers int
}

// former is another ledger than the current one.
type former struct {
	Ledger
	number string // which tokens of its claims begin with
	logger *zap.Logger

	mu     sync.Mutex
	apart  bool // it is not the current one under another name
	same   bool // it is
	err    error
	failed time.Time
	trying bool
}

// WithFormer makes a ledger that sells in current and knows the former ones.
func WithFormer(current Ledger, logger *zap.Logger, formers ...Ledger) *Successor {
	s := &Successor{current: current, logger: logger}
	s.others.Store(new([]*former))
	for _, l := range formers {
		s.Know(l)
	}
	return s
}

// Current returns the ledger in which is sold.
func (s *Successor) Current() Ledger { return s.current }

// Know adds another ledger. What is claimed from now on is not in it. What forget returns
// takes it out again.
func (s *Successor) Know(l Ledger) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers++
	f := &former{Ledger: l, number: strconv.Itoa(s.numbers), logger: s.logger.With(zap.String("former", Name(l)))}
	if shared, ok := l.(Peers); ok && s.answer != nil {
		shared.AnswerPeers(s.answer)
	}
	all := append(slices.Clone(*s.others.Load()), f)
	s.others.Store(&all)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		left := slices.DeleteFunc(slices.Clone(*s.others.Load()), func(other *former) bool { return other == f })
		s.others.Store(&left)
	}
}

// Name is what people call a ledger.
func Name(l Ledger) string {
	if placed, ok := l.(Placed); ok {
		if where := placed.Where(); where != "" {
			return where
		}
	}
	return fmt.Sprintf("%T", l)
}

// isAnswer says whether an error is what a ledger has to say, and not that it could not.
func isAnswer(err error) bool {
	_, taken := errors.AsType[*TakenError](err)
	return err == nil || taken || errors.Is(err, ErrNotFound) || errors.Is(err, ErrLost) || errors.Is(err, ErrInvalid)
}

// begin says why a former ledger is not asked: it has just failed, or somebody tries.
func (f *former) begin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	if f.trying || time.Since(f.failed) < formerAgain {
		return f.err
	}
	f.trying = true
	return nil
}

// end notes what came of asking. counts is false if it is nobody's fault that there is no
// answer.
func (f *former) end(err error, counts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trying = false
	switch was := f.err; {
	case isAnswer(err):
		if f.err = nil; was != nil {
			f.logger.Info("the former ledger can be asked again")
		}
	case counts:
		f.err, f.failed = fmt.Errorf("%w: the former ledger cannot be asked: %w", ErrUnavailable, err), time.Now()
		if was == nil {
			f.logger.Error("a former ledger cannot be asked, so nothing is sold that may be in it: bring it back; or give up what is owed and in doubt "+
				"there, and take its former_ledger out of the global options, or restart if it has none there", zap.Error(err))
		}
	}
}

// currentError is an error of the current ledger, and not of the one that is asked.
type currentError struct{ error }

func (e currentError) Unwrap() error { return e.error }

// ask asks a former ledger, unless it is the current one. If it cannot say, the error is
// ErrUnavailable.
func (s *Successor) ask(ctx context.Context, f *former, question func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	err := guard(ctx, formerWithin, func(ctx context.Context) error {
		switch same, err := s.isCurrent(ctx, f); {
		case err != nil:
			return err
		case same:
			return ErrNotFound // it has nothing that the current one has not
		}
		return question(ctx)
	})
	own, isOwn := errors.AsType[currentError](err)
	f.end(err, !isOwn && ctx.Err() == nil)
	switch {
	case isOwn:
		return own.error
	case isAnswer(err):
		return err
	}
	return fmt.Errorf("%w: the former ledger %s: %w", ErrUnavailable, Name(f.Ledger), err)
}

// isCurrent finds out once whether a former ledger is the current one, under another name
// of its host, say: then what is claimed in the one is in the other.
func (s *Successor) isCurrent(ctx context.Context, f *former) (bool, error) {
	f.mu.Lock()
	apart, same := f.apart, f.same
	f.mu.Unlock()
	if apart || same {
		return same, nil
	}
	c, err := s.current.Claim(ctx, Payment{Key: Key("is it the same ledger? " + rand.Text())}, testFor)
	if err != nil {
		return false, currentError{err}
	}
	defer s.letGo(ctx, s.current, c)
	_, err = f.Get(ctx, c.Payment.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && !f.same {
		f.logger.Warn("a former ledger is the current one; take its former_ledger out of the global options")
	}
	f.apart, f.same = err != nil, err == nil
	return f.same, nil
}

// letGo frees what was claimed only to learn something. If it fails, the lease ends.
func (s *Successor) letGo(ctx context.Context, l Ledger, c Claim) {
	_ = guard(ctx, formerWithin, func(ctx context.Context) error {
		_, err := l.Move(ctx, c, Change{To: Released})
		return err
	})
}

// nothing says whether nothing has come of a row: it is free, or it was claimed and no more.
func nothing(s State) bool { return s == Claimed || s == Released || s == Refused }

// Claim implements Ledger. It looks into the others after it has claimed: see Successor.
func (s *Successor) Claim(ctx context.Context, p Payment, lease time.Duration) (Claim, error) {
	c, err := s.current.Claim(ctx, p, lease)
	if err != nil {
		return c, err
	}
	for _, f := range *s.others.Load() {
		if err := s.free(ctx, f, p); err != nil {
			s.letGo(ctx, s.current, c)
			return Claim{}, err
		}
	}
	return c, nil
}

// free returns why an authorization may not be claimed though the current ledger has it
// not: another one has it.
func (s *Successor) free(ctx context.Context, f *former, p Payment) error {
	err := s.ask(ctx, f, func(ctx context.Context) error {
		row, err := f.Get(ctx, p.Key)
		switch {
		case err != nil:
			return err
		case !nothing(row.State):
			return &TakenError{Payment: row}
		case row.State != Claimed:
			return nil
		}
		// Whether its holder lives, the clock of that ledger says.
		c, err := f.Claim(ctx, p, testFor)
		if err == nil {
			s.letGo(ctx, f, c)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Get implements Ledger. Of a former ledger a row that is free is not worth a word.
func (s *Successor) Get(ctx context.Context, key Key) (Payment, error) {
	row, err := s.current.Get(ctx, key)
	if err == nil && row.State != Released && row.State != Refused || err != nil && !errors.Is(err, ErrNotFound) {
		return row, err
	}
	for _, f := range *s.others.Load() {
		var other Payment
		asked := s.ask(ctx, f, func(ctx context.Context) (err error) {
			other, err = f.Get(ctx, key)
			return err
		})
		switch {
		case errors.Is(asked, ErrNotFound):
		case asked != nil:
			return Payment{}, asked
		case other.State != Released && other.State != Refused:
			return other, nil
		}
	}
	return row, err
}

// Take implements Ledger.
func (s *Successor) Take(ctx context.Context, key Key, to State, lease time.Duration) (Claim, error) {
	c, err := s.current.Take(ctx, key, to, lease)
	taken, isTaken := errors.AsType[*TakenError](err)
	if !errors.Is(err, ErrNotFound) && (!isTaken || !nothing(taken.Payment.State)) {
		return c, err
	}
	for _, f := range *s.others.Load() {
		other, asked := f.Take(ctx, key, to, lease)
		switch taken, isTaken := errors.AsType[*TakenError](asked); {
		case asked == nil:
			other.Token = Token(f.number + " " + string(other.Token))
			return other, nil
		case errors.Is(asked, ErrNotFound):
		case isTaken && nothing(taken.Payment.State):
			if errors.Is(err, ErrNotFound) {
				err = asked
			}
		default:
			return Claim{}, asked
		}
	}
	return c, err
}

// of returns the ledger that has given a claim, and the claim as it has given it; nil if
// that ledger was taken out.
func (s *Successor) of(c Claim) (Ledger, Claim) {
	number, token, ok := strings.Cut(string(c.Token), " ")
	if !ok {
		return s.current, c
	}
	for _, f := range *s.others.Load() {
		if f.number == number {
			c.Token = Token(token)
			return f, c
		}
	}
	return nil, c
}

// HolderOf is the ledger that has the row of a claim, or the current one if that was taken
// out.
func (s *Successor) HolderOf(c Claim) Ledger {
	switch l, _ := s.of(c); f := l.(type) {
	case nil:
		return s.current
	case *former:
		return f.Ledger
	default:
		return l
	}
}

// Renew implements Ledger.
func (s *Successor) Renew(ctx context.Context, c Claim, lease time.Duration) error {
	l, c := s.of(c)
	if l == nil {
		return ErrLost
	}
	return l.Renew(ctx, c, lease)
}

// Move implements Ledger.
func (s *Successor) Move(ctx context.Context, c Claim, ch Change) (Payment, error) {
	l, c := s.of(c)
	if l == nil {
		return Payment{}, ErrLost
	}
	return l.Move(ctx, c, ch)
}

// List implements Ledger. What a former ledger cannot say ends the sequence after all else:
// what is in doubt in one is found out while the other is away.
func (s *Successor) List(ctx context.Context, f Filter) iter.Seq2[Payment, error] {
	others := *s.others.Load()
	if len(others) == 0 {
		return s.current.List(ctx, f)
	}
	return func(yield func(Payment, error) bool) {
		var failed error
		lists := []*list{open(ctx, s.current, f, 0)}
		defer func() {
			for _, l := range lists {
				l.stop()
			}
		}()
		for _, o := range others {
			err := s.ask(ctx, o, func(context.Context) error {
				l := open(ctx, o, f, formerWithin)
				lists = append(lists, l)
				return l.err
			})
			if err != nil && !errors.Is(err, ErrNotFound) {
				failed = err
			}
		}
		for n := 0; f.Limit == 0 || n < f.Limit; n++ {
			first := lists[0] // of several that are as old, too
			for _, l := range lists[1:] {
				if l.err != nil {
					failed, l.ok, l.err = l.err, false, nil
				}
				if l.ok && (!first.ok || first.err == nil && l.row.Created.Before(first.row.Created)) {
					first = l
				}
			}
			if !first.ok {
				break
			}
			row, err := first.row, first.err
			if first.next(); !yield(row, err) || err != nil {
				return
			}
		}
		if failed != nil {
			yield(Payment{}, failed)
		}
	}
}

// list is a List that is read step by step.
type list struct {
	row  Payment
	err  error
	ok   bool
	pull func() (Payment, error, bool)
	stop func()
}

// open begins a List, whose first row is there within some time, unless that is 0.
func open(ctx context.Context, ledger Ledger, f Filter, within time.Duration) *list {
	ctx, cancel := context.WithCancel(ctx)
	if within > 0 {
		defer time.AfterFunc(within, cancel).Stop()
	}
	l := new(list)
	pull, stop := iter.Pull2(ledger.List(ctx, f))
	l.pull, l.stop = pull, func() { stop(); cancel() }
	l.next()
	return l
}

// next reads the next row. A bug in one ledger is not one in the others.
func (l *list) next() {
	defer func() {
		if p := recover(); p != nil {
			l.row, l.err, l.ok = Payment{}, fmt.Errorf("panic: %v", p), true
		}
	}()
	l.row, l.err, l.ok = l.pull()
}

// Open implements Opener for the current ledger. The others are opened when they are asked.
func (s *Successor) Open(ctx context.Context) error {
	if l, ok := s.current.(Opener); ok {
		return l.Open(ctx)
	}
	return nil
}

// RememberGenesis implements Chains: the chain has to be that of all.
func (s *Successor) RememberGenesis(ctx context.Context, network, hash string) error {
	for _, f := range *s.others.Load() {
		if book, ok := f.Ledger.(Chains); ok {
			if err := book.RememberGenesis(ctx, network, hash); err != nil {
				return fmt.Errorf("the former ledger %s: %w", Name(f.Ledger), err)
			}
		}
	}
	if book, ok := s.current.(Chains); ok {
		return book.RememberGenesis(ctx, network, hash)
	}
	return nil
}

// HeldHere implements Peers. What is in a ledger that nobody shares is held here, if anywhere.
func (s *Successor) HeldHere(key Key) bool {
	l := s.holding(context.Background(), key)
	shared, ok := l.(Peers)
	return !ok || shared.HeldHere(key)
}

// holding is the ledger that has a row which is not free, as far as can be told.
func (s *Successor) holding(ctx context.Context, key Key) Ledger {
	others := *s.others.Load()
	if len(others) == 0 {
		return s.current
	}
	if shared, ok := s.current.(Peers); ok && shared.HeldHere(key) {
		return s.current
	}
	var row Payment
	err := guard(ctx, formerWithin, func(ctx context.Context) (err error) {
		row, err = s.current.Get(ctx, key)
		return err
	})
	if err == nil && row.State != Released && row.State != Refused {
		return s.current
	}
	for _, f := range others {
		err := s.ask(ctx, f, func(ctx context.Context) (err error) {
			row, err = f.Get(ctx, key)
			return err
		})
		if err == nil && row.State != Released && row.State != Refused {
			return f.Ledger
		}
	}
	return s.current
}

// AskHolder implements Peers.
func (s *Successor) AskHolder(ctx context.Context, key Key) ([]byte, error) {
	shared, ok := s.holding(ctx, key).(Peers)
	if !ok {
		return nil, errNotShared
	}
	return shared.AskHolder(ctx, key)
}

// AnswerPeers implements Peers.
func (s *Successor) AnswerPeers(answer func(ctx context.Context, key Key) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
	if shared, ok := s.current.(Peers); ok {
		shared.AnswerPeers(answer)
	}
	for _, f := range *s.others.Load() {
		if shared, ok := f.Ledger.(Peers); ok {
			shared.AnswerPeers(answer)
		}
	}
}

// Interface guards
var (
	_ Ledger = (*Successor)(nil)
	_ Opener = (*Successor)(nil)
	_ Chains = (*Successor)(nil)
	_ Peers  = (*Successor)(nil)
)
