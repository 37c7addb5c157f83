package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A segment of the journal is a header, frames one after another, and zeros to
// the end of the file, written in advance so that an append changes no more than
// the contents of blocks that the file has. All numbers are little endian.
//
//	header  magic [8]  database [8]  first u64  previous u64  flags u32  crc u32
//	frame   length u32  crc u32  number u64  synced u64  record [length]
//
// The checksums are CRC-32C, of all of the header before it, and of all of the
// frame after it. Frames are numbered without gaps; first is the number of the
// first one, and previous the number that would have come next in the segment
// before. Synced is up to which number the disk had confirmed all when the frame
// was written: it tells what was torn by a power failure, which nobody was
// promised, from what was damaged.
const (
	segmentMagic  = "x402jnl1"
	headerSize    = 40
	frameOverhead = 24

	// flagAnew: the segment begins with all that earlier ones had.
	flagAnew = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the header of a segment.
type header struct {
	database        uint64
	first, previous uint64
	flags           uint32
}

func (h header) bytes() []byte {
	b := []byte(segmentMagic)
	b = binary.LittleEndian.AppendUint64(b, h.database)
	b = binary.LittleEndian.AppendUint64(b, h.first)
	b = binary.LittleEndian.AppendUint64(b, h.previous)
	b = binary.LittleEndian.AppendUint32(b, h.flags)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHeader reads the header of a segment. One that is all zeros, or that is
// not there, belongs to a segment that was not begun; ok is false then, and
// also when it is damaged.
func readHeader(b []byte) (h header, begun, ok bool) {
	if len(b) < headerSize {
		return header{}, false, false
	}
	b = b[:headerSize]
	if [headerSize]byte(b) == ([headerSize]byte{}) {
		return header{}, false, false
	}
	if string(b[:8]) != segmentMagic || crc32.Checksum(b[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(b[headerSize-4:]) {
		return header{}, true, false
	}
	return header{
		database: binary.LittleEndian.Uint64(b[8:]),
		first:    binary.LittleEndian.Uint64(b[16:]),
		previous: binary.LittleEndian.Uint64(b[24:]),
		flags:    binary.LittleEndian.Uint32(b[32:]),
	}, true, true
}

// openFrame begins a frame; the record is appended next. The rest of the frame
// is filled in by seal.
func openFrame(b []byte) []byte { return append(b, make([]byte, frameOverhead)...) }

// seal fills in the overhead of a complete frame.
func seal(frame []byte, number, synced uint64) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameOverhead)) //nolint:gosec // bounded by maxRecord
	binary.LittleEndian.PutUint64(frame[8:], number)
	binary.LittleEndian.PutUint64(frame[16:], synced)
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[8:], castagnoli))
}

// readFrame reads the frame at the start of b. It returns a nil record where
// there is none.
func readFrame(b []byte) (record []byte, number, synced uint64) {
	if len(b) < frameOverhead {
		return nil, 0, 0
	}
	length := uint64(binary.LittleEndian.Uint32(b))
	if length == 0 || length > uint64(len(b)-frameOverhead) {
		return nil, 0, 0
	}
	b = b[:frameOverhead+length]
	if crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, 0
	}
	return b[frameOverhead:], binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
}

// errDamaged: records that were on disk cannot be read.
var errDamaged = errors.New("the journal is damaged")

// readFrames calls f with every record of a segment's frames, which are numbered
// from first, and returns the number that comes next. It ends where a frame was
// torn; it fails where one is damaged.
func readFrames(b []byte, first uint64, f func(number uint64, rec record) error) (next uint64, err error) {
	at := 0
	for next = first; ; next++ {
		content, number, _ := readFrame(b[at:])
		if content == nil || number != next {
			break
		}
		rec, err := decodeRecord(content)
		if err == nil {
			err = f(number, rec)
		}
		if err != nil {
			return next, fmt.Errorf("record %d: %w", number, err)
		}
		at += frameOverhead + len(content)
	}
	// What the disk had confirmed cannot be torn.
	b = trimZeros(b)
	for from := at; from <= len(b)-frameOverhead; from++ {
		number := binary.LittleEndian.Uint64(b[from+8:])
		if number <= next || number-next > uint64(len(b)) {
			continue
		}
		if content, number, synced := readFrame(b[from:]); content != nil && number > next && synced >= next {
			return next, fmt.Errorf("%w: record %d, at byte %d, was on disk and cannot be read", errDamaged, next, headerSize+at)
		}
	}
	return next, nil
}

// trimZeros cuts off the part of a segment that was not written, or most of it.
func trimZeros(b []byte) []byte {
	const block = 4096
	for len(b) >= block && bytes.Equal(b[len(b)-block:], zeros[:block]) {
		b = b[:len(b)-block]
	}
	return b
}
