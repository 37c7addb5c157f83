package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
)

// segmentSize is the size of a segment, unless a single record needs more. It
// holds the payments of some seconds of a busy gate.
const segmentSize = 8 << 20

// segments are the files of a journal: one that is written, perhaps one that is
// prepared, and those that the database does not have all of yet.
type segments struct {
	disk     disk
	prefix   string // of the names of the files
	database uint64
	size     int64

	// Of the goroutine that writes.
	current *segment
	number  uint64        // of the latest file
	coming  chan prepared // the next segment, when it is being prepared
	written uint64        // the number of the latest record written
	end     uint64        // the number that comes next, by the segments that were found
	dirty   bool          // something is written and not synced

	mu   sync.Mutex
	full []closedSegment
}

// segment is a file that is written.
type segment struct {
	file file
	name string
	at   int64 // the end of what is written
	size int64
}

// closedSegment is a file that is complete.
type closedSegment struct {
	name string
	last uint64 // the number of its last record
}

type prepared struct {
	segment *segment
	err     error
}

// uncleanError says that a part of what was to be written may be on disk.
type uncleanError struct{ err error }

func (e *uncleanError) Error() string { return e.err.Error() }
func (e *uncleanError) Unwrap() error { return e.err }

func segmentName(prefix string, number uint64) string {
	return fmt.Sprintf("%s%016x", prefix, number)
}

// zeros are what segments are made of; they are only read.
var zeros [64 << 10]byte

// create makes a file of zeros on disk, so that neither its length nor its
// blocks change when it is written.
func (s *segments) create(number uint64, size int64) (_ *segment, err error) {
	name := segmentName(s.prefix, number)
	f, err := s.disk.Create(name)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.disk.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), s.disk.Remove(name))
	}
	return &segment{file: f, name: name, size: size}, nil
}

// prepare makes the next segment in the background.
func (s *segments) prepare() {
	s.number++
	number, coming := s.number, make(chan prepared, 1)
	s.coming = coming
	go func() {
		next, err := s.create(number, s.size)
		coming <- prepared{next, err}
	}()
}

// write writes the frames of a batch, and begins new segments as needed. After
// an error nothing of the batch is on disk, unless it is an uncleanError.
func (s *segments) write(b *batch, synced uint64) error {
	begin, from := 0, 0
	flush := func(to int) error {
		if begin == to {
			return nil
		}
		err := s.append(b.frames[begin:to])
		if err == nil {
			begin = to
		}
		return err
	}
	err := func() error {
		for i, to := range b.ends {
			number := b.first + uint64(i) //nolint:gosec // an index
			seal(b.frames[from:to], number, synced)
			if s.current == nil || s.current.at+int64(to-begin) > s.current.size {
				if err := flush(from); err != nil {
					return err
				}
				if err := s.rotate(number, int64(to-from)); err != nil {
					return err
				}
			}
			from = to
		}
		return flush(from)
	}()
	if err != nil {
		if begin > 0 { // a part of it is in the segment before
			err = &uncleanError{err}
		}
		return err
	}
	s.written = b.first + uint64(len(b.ends)) - 1
	if s.coming == nil && s.current.at > s.current.size/2 {
		s.prepare()
	}
	return nil
}

// append writes whole frames into the current segment. If that fails, it takes
// them out again.
func (s *segments) append(frames []byte) error {
	c := s.current
	at := c.at
	s.dirty = true
	_, err := c.file.WriteAt(frames, at)
	if err != nil {
		if undo := errors.Join(c.file.Truncate(at), c.file.Sync()); undo != nil {
			return &uncleanError{errors.Join(err, undo)}
		}
		return err
	}
	c.at += int64(len(frames))
	return nil
}

// rotate begins the next segment with the record of this number, for which it
// has room. The one before is complete and on disk by then, so that a reader
// can tell a missing end from a torn one.
func (s *segments) rotate(number uint64, room int64) error {
	if err := s.sync(); err != nil {
		return err
	}
	next, err := s.nextSegment(headerSize + room)
	if err != nil {
		return err
	}
	previous := number
	if s.current == nil && s.end != 0 {
		previous = s.end
	}
	head := header{database: s.database, first: number, previous: previous}.bytes()
	s.dirty = true
	if _, err := next.file.WriteAt(head, 0); err != nil {
		return errors.Join(err, next.file.Close(), s.disk.Remove(next.name))
	}
	next.at = int64(len(head))
	return s.begin(next, number)
}

// begin makes next the current segment.
func (s *segments) begin(next *segment, number uint64) (err error) {
	if s.current != nil {
		s.mu.Lock()
		s.full = append(s.full, closedSegment{s.current.name, number - 1})
		s.mu.Unlock()
		err = s.current.file.Close()
	}
	s.current = next
	return err
}

func (s *segments) nextSegment(need int64) (*segment, error) {
	if s.coming != nil {
		p := <-s.coming
		s.coming = nil
		if p.err != nil {
			return nil, p.err
		}
		if p.segment.size >= need {
			return p.segment, nil
		}
		if err := errors.Join(p.segment.file.Close(), s.disk.Remove(p.segment.name)); err != nil {
			return nil, err
		}
	}
	s.number++
	return s.create(s.number, max(s.size, need))
}

// sync brings all that is written to the disk.
func (s *segments) sync() error {
	if s.current == nil || !s.dirty {
		return nil
	}
	if err := s.current.file.Sync(); err != nil {
		return &uncleanError{err}
	}
	s.dirty = false
	return nil
}

// anew begins a segment with the frames of a batch, which say all that is not in
// the database: the segments before it count no more. It is for a disk that has
// failed, when nobody knows what the present segment has. The header comes last,
// for it is what makes the segment count.
func (s *segments) anew(b *batch) error {
	if s.coming != nil { // it may have been prepared before the disk was well
		if p := <-s.coming; p.segment != nil {
			_ = errors.Join(p.segment.file.Close(), s.disk.Remove(p.segment.name))
		}
		s.coming = nil
	}
	s.number++
	next, err := s.create(s.number, max(s.size, int64(headerSize+len(b.frames))))
	if err != nil {
		return err
	}
	from := 0
	for i, to := range b.ends {
		seal(b.frames[from:to], b.first+uint64(i), 0) //nolint:gosec // an index
		from = to
	}
	head := header{database: s.database, first: b.first, previous: b.first, flags: flagAnew}.bytes()
	_, err = next.file.WriteAt(b.frames, headerSize)
	if err == nil {
		err = next.file.Sync()
	}
	if err == nil {
		_, err = next.file.WriteAt(head, 0)
	}
	if err == nil {
		err = next.file.Sync()
	}
	if err != nil {
		return errors.Join(err, next.file.Close(), s.disk.Remove(next.name))
	}
	next.at = int64(headerSize + len(b.frames))
	_ = s.begin(next, 0) // what the old file says to its end is of no interest
	s.mu.Lock()
	for i := range s.full {
		s.full[i].last = 0
	}
	s.mu.Unlock()
	s.dirty = false
	s.written = b.first + uint64(len(b.ends)) - 1
	return nil
}

// releasable says whether release would remove something.
func (s *segments) releasable(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.full) > 0 && s.full[0].last <= number
}

// release removes the complete segments that have nothing after record number.
func (s *segments) release(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.full) > 0 && s.full[0].last <= number {
		if err := s.disk.Remove(s.full[0].name); err != nil {
			return err
		}
		s.full = s.full[1:]
	}
	return nil
}

// drop ends the current segment, and prepares the next, if it has anything.
func (s *segments) drop() error {
	if s.current == nil || s.written == 0 {
		return nil
	}
	if s.coming == nil {
		s.prepare()
	}
	if err := s.sync(); err != nil {
		return err
	}
	s.end = s.written + 1
	return s.begin(nil, s.end)
}

// removeAll removes every segment, after close.
func (s *segments) removeAll() error {
	if s.current != nil {
		s.full = append(s.full, closedSegment{name: s.current.name})
	}
	var errs []error
	for _, c := range s.full {
		errs = append(errs, s.disk.Remove(c.name))
	}
	return errors.Join(errs...)
}

func (s *segments) close() (err error) {
	if s.coming != nil {
		if p := <-s.coming; p.segment != nil {
			err = errors.Join(p.segment.file.Close(), s.disk.Remove(p.segment.name))
		}
		s.coming = nil
	}
	if s.current != nil {
		err = errors.Join(err, s.current.file.Close())
	}
	return err
}
