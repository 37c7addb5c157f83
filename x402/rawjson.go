package x402

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

var (
	errNotObject = errors.New("not a JSON object")
	errTooDeep   = fmt.Errorf("JSON nested deeper than %d", MaxDepth)
	errNumber    = fmt.Errorf("JSON number of more than %d characters, or %d digits", MaxNumber, MaxDigits)
	errCaseTwin  = errors.New("JSON member that differs from a known name only in letter case or underscores")
	errTrailing  = errors.New("data after the JSON value")
)

// scanner is a decoder over bytes that we hold anyway.
type scanner struct {
	buf bytes.Buffer
	dec jsontext.Decoder
}

// scanners keeps decoders for reuse: a payment is five nested objects, and a
// new decoder for each would be most of the garbage of a paid request.
var scanners = sync.Pool{New: func() any { return new(scanner) }}

// readObject reads the members of the JSON object v that names lists into dst,
// in the order of names, as slices of v. A member that is absent or null stays
// nil, because Python, Go and Rust peers send null for what they leave out. It
// returns how many other members there are, nulls again not counted.
//
// It is strict, since somebody else reads the same bytes after us and must not
// find another meaning in them: duplicate names, invalid UTF-8 and trailing
// data are errors, and so is a spelling of a known name that a lenient reader
// (Go folds case, Python takes snake_case) could take for it.
func readObject(v jsontext.Value, names []string, dst []jsontext.Value) (others int, err error) {
	s := scanners.Get().(*scanner)
	defer func() {
		s.buf = bytes.Buffer{} // lets go of v
		scanners.Put(s)
	}()
	s.buf = *bytes.NewBuffer(v)
	s.dec.Reset(&s.buf)
	d := &s.dec

	if d.PeekKind() != jsontext.KindBeginObject {
		return 0, errNotObject
	}
	if _, err := d.ReadToken(); err != nil {
		return 0, syntax(err)
	}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadValue()
		if err != nil {
			return 0, syntax(err)
		}
		i, err := indexName(names, name)
		if err != nil {
			return 0, err
		}
		val, err := d.ReadValue()
		if err != nil {
			return 0, syntax(err)
		}
		switch {
		case val.Kind() == jsontext.KindNull:
		case i < 0:
			others++
		default:
			// Not val itself, which the decoder only lends.
			end := int(d.InputOffset())
			dst[i] = v[end-len(val) : end : end]
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return 0, syntax(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return 0, errTrailing
	}
	return others, nil
}

// indexName finds the quoted JSON string name in names, -1 if it is none.
func indexName(names []string, name jsontext.Value) (int, error) {
	plain := []byte(name[1 : len(name)-1])
	if bytes.IndexByte(plain, '\\') >= 0 {
		plain, _ = jsontext.AppendUnquote(nil, name)
	}
	for i, n := range names {
		if string(plain) == n {
			return i, nil
		}
	}
	for _, n := range names {
		if foldsTo(plain, n) {
			return 0, errCaseTwin
		}
	}
	return -1, nil
}

// foldsTo reports whether a reader that ignores letter case, underscores and
// hyphens would take name for known.
func foldsTo(name []byte, known string) bool {
	if len(name) < len(known) {
		return false
	}
	if bytes.ContainsAny(name, "_-") {
		name = bytes.ReplaceAll(name, []byte("_"), nil)
		name = bytes.ReplaceAll(name, []byte("-"), nil)
	}
	return strings.EqualFold(string(name), known)
}

// text returns the string that the JSON string v holds, and whether it is one.
func text(v jsontext.Value) (string, bool) {
	if v.Kind() != jsontext.KindString {
		return "", false
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1]), true
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// isObject reports whether v is a JSON object, as its first byte tells.
func isObject(v jsontext.Value) bool { return v.Kind() == jsontext.KindBeginObject }

// bounded refuses JSON that is expensive for whoever reads it: nested deeper
// than depth, or with long numbers. It finds strings and brackets only; what
// is no JSON at all is left to the decoder.
func bounded(b []byte, depth int) error {
	level, number, digits, inString := 0, 0, 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch {
		case c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c|0x20 == 'e':
			if number++; c >= '0' && c <= '9' {
				digits++
			}
			if number > MaxNumber && digits < number || number > MaxDigits {
				return errNumber
			}
			continue
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if level++; level > depth {
				return errTooDeep
			}
		case c == '}' || c == ']':
			level--
		}
		number, digits = 0, 0
	}
	return nil
}

// syntax keeps where JSON is wrong and drops what stood there.
func syntax(err error) error {
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Errorf("duplicate JSON name at byte %d", s.ByteOffset)
		}
		return fmt.Errorf("invalid JSON at byte %d", s.ByteOffset)
	}
	return errors.New("JSON ends too early")
}
