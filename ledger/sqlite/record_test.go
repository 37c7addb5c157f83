package sqlite

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// drawPayment draws a payment with something in every field, so that a field
// that is new and was forgotten here shows.
func drawPayment(t *rapid.T, name string) ledger.Payment {
	var p ledger.Payment
	v := reflect.ValueOf(&p).Elem()
	for i := range v.NumField() {
		f, name := v.Field(i), name+"."+v.Type().Field(i).Name
		switch value := f.Interface().(type) {
		case time.Time:
			if rapid.Bool().Draw(t, name+" is set") {
				f.Set(reflect.ValueOf(time.Unix(0, rapid.Int64().Draw(t, name)).UTC()))
			}
		case []byte:
			if b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, name); len(b) > 0 {
				f.SetBytes(b)
			}
		case bool:
			f.SetBool(rapid.Bool().Draw(t, name))
		case int:
			f.SetInt(int64(rapid.IntRange(0, 1000).Draw(t, name)))
		default:
			if f.Kind() != reflect.String {
				t.Fatalf("field %s is a %T: teach the record and the table about it", name, value)
			}
			f.SetString(string(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, name)))
		}
	}
	p.ID = ledger.ID(p.Key)
	p.State = rapid.SampledFrom(ledger.States()).Draw(t, name+" state")
	return p
}

// TestRecords: what a record says of a row is all of it.
func TestRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := drawPayment(t, "from")
		rec, err := decodeRecord(appendRow(nil, &from))
		if err != nil || rec.key != digestOf(from.Key) || !reflect.DeepEqual(*rec.row, from) {
			t.Fatalf("a row came back as %+v, %v\nwant %+v", rec.row, err, from)
		}

		// A move can change what learn and apply in the ledger package change.
		to, other := from, drawPayment(t, "to")
		to.State, to.Doubt, to.Updated, to.Lease = other.State, other.Doubt, other.Updated, other.Lease
		for _, field := range []string{"Payer", "Amount", "Facilitator", "Transaction", "Reason", "Status", "Runs", "Request", "Answer", "Body", "Ended"} {
			if rapid.Bool().Draw(t, "changes "+field) {
				reflect.ValueOf(&to).Elem().FieldByName(field).Set(reflect.ValueOf(other).FieldByName(field))
			}
		}
		key := digestOf(from.Key)
		rec, err = decodeRecord(appendChange(nil, &key, &from, &to))
		if err != nil || rec.key != key || rec.row != nil {
			t.Fatalf("a change came back as %+v, %v", rec, err)
		}
		for range 2 { // to apply it again makes no difference
			if err := rec.apply(&from); err != nil || !reflect.DeepEqual(from, to) {
				t.Fatalf("the change led to %+v, %v\nwant %+v", from, err, to)
			}
		}
	})
}

// TestColumns: what the table says of a row is all of it.
func TestColumns(t *testing.T) {
	d := testDatabase(t)
	version := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		p := drawPayment(t, "p")
		key := digestOf(p.Key)
		version++
		if err := d.store(t.Context(), []copyOf{{key: key, version: version, payment: &p}}, false); err != nil {
			t.Fatal(err)
		}
		got, v, err := d.getVersion(t.Context(), &key)
		if p.Created.IsZero() {
			p.Created = time.Unix(0, 0).UTC() // a row always has them
		}
		if p.Updated.IsZero() {
			p.Updated = time.Unix(0, 0).UTC()
		}
		if err != nil || v != version || !reflect.DeepEqual(got, p) {
			t.Fatalf("came back as %+v, version %d, %v\nwant %+v", got, v, err, p)
		}

		// An older version changes nothing.
		old := p
		old.State = "older"
		if err := d.store(t.Context(), []copyOf{{key: key, version: version - 1, payment: &old}}, false); err != nil {
			t.Fatal(err)
		}
		if got, _ := d.get(t.Context(), &key); !reflect.DeepEqual(got, p) {
			t.Fatalf("an older version made it %+v", got)
		}
	})
}

// TestStoreMany: rows are written several at a time, and of two versions of one
// the later stays, in whatever order they come.
func TestStoreMany(t *testing.T) {
	d := testDatabase(t)
	version := uint64(0)
	for _, n := range []int{1, rowsAtOnce - 1, rowsAtOnce, rowsAtOnce + 1, 3*rowsAtOnce + 2} {
		var items []copyOf
		want := make(map[ledger.Key]uint64)
		for i := range n {
			version++
			p := payment(ledger.Key(fmt.Sprint(n, " ", i/2)))
			p.Status = int(version)
			items = append(items, copyOf{key: digestOf(p.Key), version: version, payment: &p})
			want[p.Key] = version
		}
		for i := 1; i < n; i += 4 { // some pairs come the other way round
			items[i-1], items[i] = items[i], items[i-1]
		}
		if err := d.store(t.Context(), items, false); err != nil {
			t.Fatal(err)
		}
		for key, version := range want {
			hash := digestOf(key)
			p, got, err := d.getVersion(t.Context(), &hash)
			if err != nil || got != version || p.Status != int(version) || p.Key != key {
				t.Errorf("%d rows: %s came back as version %d, status %d, %v; want %d", n, key, got, p.Status, err, version)
			}
		}
		if last, err := d.number(t.Context(), metaVersion); err != nil || last != version {
			t.Errorf("%d rows: the highest version is %d, %v; want %d", n, last, err, version)
		}
	}
}

func testDatabase(t *testing.T) *database {
	t.Helper()
	d, err := openDatabase(t.TempDir() + "/payments.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestSegmentFrames(t *testing.T) {
	var b []byte
	var starts []int
	for n := range uint64(10) {
		starts = append(starts, len(b))
		begin := len(b)
		b = appendRow(openFrame(b), &ledger.Payment{Key: ledger.Key(fmt.Sprint("k", n)), State: ledger.Settling, FetchBy: time.Unix(1, 1)})
		seal(b[begin:], 100+n, 100+n/5*5-1) // a sync after five
	}
	content := len(b)
	b = append(b, make([]byte, 1000)...)
	read := func(b []byte) (got, next uint64, err error) {
		next, err = readFrames(b, 100, func(number uint64, rec record) error {
			if rec.row.Key != ledger.Key(fmt.Sprint("k", number-100)) {
				t.Errorf("record %d is of %s", number, rec.row.Key)
			}
			got++
			return nil
		})
		return got, next, err
	}
	if got, next, err := read(b); got != 10 || next != 110 || err != nil {
		t.Fatalf("%d records, next %d, %v", got, next, err)
	}
	// Torn anywhere, a segment ends before the frame that was torn.
	for cut := range content {
		torn := append(bytes.Clone(b[:cut]), make([]byte, len(b)-cut)...)
		got, _, err := read(torn)
		whole := 0
		for whole < 9 && starts[whole+1] <= cut {
			whole++
		}
		if int(got) != whole || err != nil {
			t.Fatalf("cut at %d: %d records, want %d, %v", cut, got, whole, err)
		}
	}
	// What was changed later is told from what was torn, if anything after it
	// says that it was on disk.
	for at := range content {
		bad := bytes.Clone(b)
		bad[at] ^= 0x55
		got, _, err := read(bad)
		frame := 0
		for frame < 9 && starts[frame+1] <= at {
			frame++
		}
		if int(got) != frame || (err != nil) != (frame < 5) {
			t.Fatalf("changed at %d, in frame %d: %d records, %v", at, frame, got, err)
		}
	}
}

// FuzzReplay reads anything as a segment. Whatever it is, it is refused or ends
// somewhere, and what was read can be written again.
func FuzzReplay(f *testing.F) {
	p := ledger.Payment{Key: "k", State: ledger.Settling, Request: []byte("{}"), Created: time.Unix(1, 2)}
	key := digestOf(p.Key)
	next := p
	next.State, next.Transaction = ledger.Settled, "0x1"
	b := appendRow(openFrame(nil), &p)
	seal(b, 1, 0)
	f.Add(bytes.Clone(b))
	second := appendChange(openFrame(nil), &key, &p, &next)
	seal(second, 2, 1)
	f.Add(append(b, second...))
	f.Add(append(append(header{1, 1, 1, 0}.bytes(), b...), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, begun, ok := readHeader(b)
		if ok && (!begun || !bytes.Equal(h.bytes(), b[:headerSize])) {
			t.Errorf("header %+v", h)
		}
		// The contents without the checksum, which a fuzzer does not find.
		if rec, err := decodeRecord(b); err == nil && rec.row != nil {
			again, err := decodeRecord(appendRow(nil, rec.row))
			if err != nil || !reflect.DeepEqual(again, rec) {
				t.Errorf("%+v was written as %+v, %v", rec.row, again.row, err)
			}
		}
		sealed := append(openFrame(nil), b...)
		seal(sealed, 1, 0)
		for _, b := range [][]byte{b, sealed} {
			n := uint64(0)
			next, err := readFrames(b, 1, func(number uint64, rec record) error {
				if n++; number != n {
					t.Errorf("record %d is the %dth", number, n)
				}
				if rec.row == nil {
					return rec.apply(&ledger.Payment{})
				}
				return nil
			})
			if err == nil && next != n+1 {
				t.Errorf("%d records, and %d is next", n, next)
			}
		}
	})
}
