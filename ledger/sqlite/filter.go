package sqlite

import (
	"context"
	"encoding/binary"
	"time"

	"go.uber.org/zap"
)

// filter knows which keys the database surely does not have: nearly all that are
// claimed. It is a Bloom filter, ten bits for a row, with about one wrong guess
// in a hundred, so that a claim does not look into the file. It grows by adding
// larger ones. All under the lock of the ledger.
type filter struct {
	parts []bloom
	// ready: it has all rows of the database.
	ready bool
	// off: there are so many rows that looking them up is cheaper.
	off bool
}

const (
	bitsPerRow = 10
	filterRows = 1 << 17 // of the first part
	// filterMax is how many rows the filter has at most, in 64 MB.
	filterMax = 50_000_000
)

// mayHave reports false when the database does not have the key.
func (f *filter) mayHave(key *digest) bool {
	if !f.ready || f.off {
		return true
	}
	for i := range f.parts {
		if f.parts[i].has(key) {
			return true
		}
	}
	return false
}

func (f *filter) add(key *digest) {
	last := len(f.parts) - 1
	switch {
	case f.off:
		return
	case last < 0:
		f.parts = append(f.parts, newBloom(filterRows))
		last = 0
	case f.parts[last].room == 0:
		size := 2 * f.parts[last].size
		if size > filterMax/2 {
			f.parts, f.off = nil, true
			return
		}
		f.parts = append(f.parts, newBloom(size))
		last++
	}
	f.parts[last].add(key)
}

// bloom is a part of a filter. Its hash functions are cut out of the key, which
// is a hash itself.
type bloom struct {
	bits       []uint64
	size, room int
}

func newBloom(rows int) bloom {
	return bloom{bits: make([]uint64, rows*bitsPerRow/64), size: rows, room: rows}
}

const probes = 7

func (b *bloom) add(key *digest) {
	b.room--
	for i := range uint64(probes) {
		at := b.at(key, i)
		b.bits[at/64] |= 1 << (at % 64)
	}
}

func (b *bloom) has(key *digest) bool {
	for i := range uint64(probes) {
		if at := b.at(key, i); b.bits[at/64]&(1<<(at%64)) == 0 {
			return false
		}
	}
	return true
}

func (b *bloom) at(key *digest, i uint64) uint64 {
	h1, h2 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	return (h1 + i*(h2|1)) % uint64(len(b.bits)*64)
}

// fillFilter reads all keys of the database into the filter; until then every
// claim looks into the database.
func (l *Ledger) fillFilter() {
	const page = 2000
	ctx, cancel := l.untilClosed()
	defer cancel()
	after := []byte{} // less than every other blob
	for {
		keys, err := l.db.hashes(ctx, after, page)
		if err != nil {
			if !l.pause(time.Second) {
				return
			}
			l.logger.Warn("reading the keys of the ledger", zap.Error(err))
			continue
		}
		l.mu.Lock()
		for i := range keys {
			l.filter.add(&keys[i])
		}
		l.filter.ready = len(keys) < page
		ready := l.filter.ready || l.filter.off
		l.mu.Unlock()
		if ready {
			return
		}
		after = keys[len(keys)-1][:]
	}
}

// hashes returns the next n keys after the given one.
func (d *database) hashes(ctx context.Context, after []byte, n int) (keys []digest, err error) {
	rows, err := d.read.QueryContext(ctx, "SELECT hash FROM payments WHERE hash > ? ORDER BY hash LIMIT ?", after, n)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var hash []byte
		if err := rows.Scan(&hash); err != nil {
			return nil, err
		}
		keys = append(keys, padded(hash))
	}
	return keys, rows.Err()
}

// untilClosed returns a context that ends with the ledger.
func (l *Ledger) untilClosed() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-l.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// pause waits, and reports false when the ledger is closed meanwhile.
func (l *Ledger) pause(d time.Duration) bool {
	select {
	case <-l.quit:
		return false
	case <-time.After(d):
		return true
	}
}
