package sqlite

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// digest is what a row is stored under: the SHA-256 of its key. Its first half
// is the payment's ID, so that the primary key finds a row by either.
type digest [sha256.Size]byte

func digestOf(key ledger.Key) digest { return sha256.Sum256([]byte(key)) }

// The kinds of records.
const (
	// recordOldRow is a recordRow of the first version, which had less.
	recordOldRow = 1
	// recordChange has what one change can have changed in a row.
	recordChange = 2
	// recordRow has all of a row: the first record of each claim that became a
	// settlement, and of what is written anew after a failure of the disk.
	recordRow = 3
)

// The facts that a change names only if it changed them, as bits.
const (
	factPayer = 1 << iota
	factAmount
	factFacilitator
	factTransaction
	factReason
	factStatus
	factRuns
	factRequest
	factAnswer
	factBody
	factEnded

	factsEnd
)

var errRecord = errors.New("a record that this version does not understand")

// appendRow appends a record with all of the row.
func appendRow(b []byte, p *ledger.Payment) []byte {
	b = append(b, recordRow)
	for _, s := range rowStrings(p) {
		b = appendString(b, *s)
	}
	b = appendString(b, string(p.State))
	b = appendBool(b, p.Doubt)
	b = binary.AppendVarint(b, int64(p.Status))
	b = binary.AppendVarint(b, int64(p.Runs))
	b = appendString(b, p.Request)
	b = appendString(b, p.Answer)
	for _, t := range rowTimes(p) {
		b = appendTime(b, *t)
	}
	// What follows a recordOldRow does not have.
	b = appendString(b, p.Line)
	b = appendBool(b, p.Effects)
	b = binary.AppendVarint(b, int64(p.Ended))
	return appendTime(b, p.FetchBy)
}

// rowStrings are the strings of a row, in the
// order in which a record has them. The ID follows from the key.
func rowStrings(p *ledger.Payment) [16]*string {
	return [...]*string{
		(*string)(&p.Key), &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Payer, &p.Amount,
		&p.Method, &p.Host, &p.URL, &p.Client, &p.Identifier, &p.Body, &p.Facilitator, &p.Transaction, &p.Reason,
	}
}

func rowTimes(p *ledger.Payment) [5]*time.Time {
	return [...]*time.Time{&p.ValidBefore, &p.Created, &p.Updated, &p.Lease, &p.Keep}
}

// appendChange appends a record with the difference between two versions of a
// row, of which the first has been recorded. It has the new facts, not the
// differences: applied to any version in between, it leads to the same row.
func appendChange(b []byte, key *digest, from, to *ledger.Payment) []byte {
	b = append(b, recordChange)
	b = append(b, key[:]...)
	b = appendString(b, string(to.State))
	b = appendBool(b, to.Doubt)
	b = appendTime(b, to.Updated)
	b = appendTime(b, to.Lease)
	facts := changedFacts(from, to)
	b = binary.AppendUvarint(b, facts)
	for i, s := range factStrings(to) {
		if facts&(1<<i) != 0 {
			b = appendString(b, *s)
		}
	}
	if facts&factStatus != 0 {
		b = binary.AppendVarint(b, int64(to.Status))
	}
	if facts&factRuns != 0 {
		b = binary.AppendVarint(b, int64(to.Runs))
	}
	if facts&factRequest != 0 {
		b = appendString(b, to.Request)
	}
	if facts&factAnswer != 0 {
		b = appendString(b, to.Answer)
	}
	if facts&factBody != 0 {
		b = appendString(b, to.Body)
	}
	if facts&factEnded != 0 {
		b = binary.AppendVarint(b, int64(to.Ended))
	}
	return b
}

// factStrings are the strings that a change can change and whose bits come first, in
// their order.
func factStrings(p *ledger.Payment) [5]*string {
	return [...]*string{&p.Payer, &p.Amount, &p.Facilitator, &p.Transaction, &p.Reason}
}

func changedFacts(from, to *ledger.Payment) (facts uint64) {
	old := factStrings(from)
	for i, s := range factStrings(to) {
		if *s != *old[i] {
			facts |= 1 << i
		}
	}
	if from.Status != to.Status {
		facts |= factStatus
	}
	if from.Runs != to.Runs {
		facts |= factRuns
	}
	if string(from.Request) != string(to.Request) {
		facts |= factRequest
	}
	if string(from.Answer) != string(to.Answer) {
		facts |= factAnswer
	}
	if from.Body != to.Body {
		facts |= factBody
	}
	if from.Ended != to.Ended {
		facts |= factEnded
	}
	return facts
}

// record is one record, decoded as far as it can be without the row.
type record struct {
	key digest
	// row is the whole row, if the record has one.
	row *ledger.Payment
	// change is the rest of a change, to be applied to the row.
	change []byte
}

// decodeRecord decodes a record. What it returns does not refer to b, but for a
// change.
func decodeRecord(b []byte) (record, error) {
	if len(b) == 0 {
		return record{}, errRecord
	}
	d := decoder{rest: b[1:]}
	switch b[0] {
	case recordOldRow, recordRow:
		p := d.row(b[0])
		if d.err != nil || len(d.rest) != 0 || p.Key == "" || p.State == "" {
			return record{}, errRecord
		}
		return record{key: digestOf(p.Key), row: &p}, nil
	case recordChange:
		var r record
		copy(r.key[:], d.take(uint64(len(r.key))))
		r.change = d.rest
		var scratch ledger.Payment
		if d.err != nil || r.apply(&scratch) != nil {
			return record{}, errRecord
		}
		return r, nil
	}
	return record{}, fmt.Errorf("%w: kind %d", errRecord, b[0])
}

// apply makes the change in the row.
func (r *record) apply(p *ledger.Payment) error {
	d := decoder{rest: r.change}
	state, doubt := d.string(), d.bool()
	updated, lease := d.time(), d.time()
	facts := d.uvarint()
	for i, s := range factStrings(p) {
		if facts&(1<<i) != 0 {
			*s = d.string()
		}
	}
	if facts&factStatus != 0 {
		p.Status = int(d.varint())
	}
	if facts&factRuns != 0 {
		p.Runs = int(d.varint())
	}
	if facts&factRequest != 0 {
		p.Request = d.bytes()
	}
	if facts&factAnswer != 0 {
		p.Answer = d.bytes()
	}
	if facts&factBody != 0 {
		p.Body = d.string()
	}
	if facts&factEnded != 0 {
		p.Ended = int(d.varint())
	}
	p.State, p.Doubt, p.Updated, p.Lease = ledger.State(state), doubt, updated, lease
	if d.err != nil || len(d.rest) != 0 || state == "" || facts >= factsEnd {
		return errRecord
	}
	return nil
}

func (d *decoder) row(kind byte) ledger.Payment {
	var p ledger.Payment
	for _, s := range rowStrings(&p) {
		*s = d.string()
	}
	p.ID = ledger.ID(p.Key)
	p.State, p.Doubt = ledger.State(d.string()), d.bool()
	p.Status, p.Runs = int(d.varint()), int(d.varint())
	p.Request, p.Answer = d.bytes(), d.bytes()
	for _, t := range rowTimes(&p) {
		*t = d.time()
	}
	if kind != recordOldRow {
		p.Line, p.Effects = d.string(), d.bool()
		p.Ended, p.FetchBy = int(d.varint()), d.time()
	}
	return p
}
