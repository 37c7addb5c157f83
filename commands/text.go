package commands

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a foreign text on one line of ours.
const maxText = 1000

// maxPhrase bounds a text of a seller beside others, so that it does not push
// them out of sight.
const maxPhrase = 200

// maxWords bounds what a seller says for people. What to do stands at its end.
const maxWords = 500

// clean makes a text that came from elsewhere fit for a terminal: one line, of
// bounded length, of what shows.
func clean(s string) string {
	s = strip(s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// strip leaves of a text that came from elsewhere one line of what shows: without
// the control characters that could move the cursor or recolour what we have
// written, turn the direction of reading, or hide.
func strip(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !shows(r) {
			return -1
		}
		return r
	}, s)
}

// phrase is a text of a seller within a line of ours: short, and without the white
// space that would push its end to where another line seems to begin.
func phrase(s string) string { return upTo(maxPhrase, s) }

func upTo(most int, s string) string {
	s = strings.Join(strings.Fields(strip(s)), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// shows reports whether a character shows on a terminal and does nothing else.
func shows(r rune) bool {
	return r != utf8.RuneError && unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// escapeJSON writes what does not show as JSON escapes it. The values stay the
// same: beyond ASCII there are only strings.
func escapeJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r < 0x7f || shows(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// jsonOutput is where an encoder writes JSON that people may see. An encoder must
// write whole characters, as those of encoding/json do.
type jsonOutput struct{ w io.Writer }

// Write implements io.Writer.
func (o jsonOutput) Write(p []byte) (int, error) {
	if _, err := o.w.Write(escapeJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// screen is a terminal to which a text from elsewhere is written as it comes. Its
// lines and tabs stay.
type screen struct {
	w    io.Writer
	rest []byte // the beginning of a character
	open bool   // the last line has not ended
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	text := append(s.rest, p...)
	var out bytes.Buffer
	for len(text) > 0 && utf8.FullRune(text) {
		r, n := utf8.DecodeRune(text)
		if r == '\n' || r == '\t' || shows(r) {
			out.WriteRune(r)
		}
		text = text[n:]
	}
	s.rest = append([]byte(nil), text...)
	if written := out.Bytes(); len(written) > 0 {
		s.open = written[len(written)-1] != '\n'
	}
	if _, err := s.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end ends the last line, so that what is said next begins one. Nobody misses it
// on a terminal that is gone.
func (s *screen) end() {
	if s.open {
		s.open = false
		_, _ = io.WriteString(s.w, "\n")
	}
}

var keyDigits = regexp.MustCompile(`[0-9a-fA-F]{64}`)

// hiddenKeyError is an error without the private key that somebody gave in place of
// something else, such as the name of its variable.
type hiddenKeyError struct{ error }

// Error implements error.
func (e hiddenKeyError) Error() string {
	return keyDigits.ReplaceAllString(e.error.Error(), "(64 hexadecimal digits)")
}

// Unwrap returns the error with all its text.
func (e hiddenKeyError) Unwrap() error { return e.error }

func hideKey(err error) error {
	if err == nil {
		return nil
	}
	return hiddenKeyError{err}
}
