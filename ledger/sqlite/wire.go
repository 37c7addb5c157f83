package sqlite

import (
	"bytes"
	"encoding/binary"
	"time"
)

// The parts of which records are made.

func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendTime keeps any instant, also the zero one.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond())) //nolint:gosec // 0 to 999,999,999
}

// decoder takes a record apart. After an error it returns zero values.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.rest)) {
		d.err = errRecord
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.err = errRecord
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.err = errRecord
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *decoder) bool() bool {
	b := d.take(1)
	if len(b) == 1 && b[0] > 1 {
		d.err = errRecord
	}
	return len(b) == 1 && b[0] == 1
}

func (d *decoder) string() string { return string(d.take(d.uvarint())) }

// bytes returns nil for none.
func (d *decoder) bytes() []byte {
	if b := d.take(d.uvarint()); len(b) > 0 {
		return bytes.Clone(b)
	}
	return nil
}

func (d *decoder) time() time.Time {
	sec, nsec := d.varint(), d.uvarint()
	if nsec >= uint64(time.Second) {
		d.err = errRecord
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC() //nolint:gosec // less than a second
}
