package remote

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode"
)

const (
	// maxLogText bounds what of a facilitator's text reaches the log.
	maxLogText = 300
	// minHidden is the shortest secret that is looked for in texts; a shorter
	// one, such as "Bearer", would be found everywhere.
	minHidden = 8
)

// longRun matches what is too long to be a word, an address or a transaction:
// a signature, calldata, a token, a whole payment.
var longRun = regexp.MustCompile(`[0-9A-Za-z+/=_.-]{90,}`)

// cleanText makes a text from outside fit for the log: one bounded line, without
// our credentials and without anything that could be a payment. Facilitators
// put the error texts of their nodes into answers, calldata and signature
// included.
func (f *Facilitator) cleanText(s string) string {
	if f.auth != nil {
		for _, secret := range f.auth.secrets() {
			if len(secret) >= minHidden {
				s = strings.ReplaceAll(s, secret, "[hidden]")
			}
		}
	}
	s, _, _ = strings.Cut(s, "\n")
	s = longRun.ReplaceAllString(s, "[long]")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > maxLogText {
		s = strings.ToValidUTF8(s[:maxLogText], "") + "…"
	}
	return strings.TrimSpace(s)
}

// clean makes the text of an error fit for the log. errors.Is and errors.As
// still see the error itself.
func (f *Facilitator) clean(err error) error {
	return &cleanError{text: f.cleanText(err.Error()), err: err}
}

type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.err }

// decodeForLog decodes a base64 header, if it is one.
func decodeForLog(v string) string {
	if len(v) > 2*maxLogText {
		v = v[:2*maxLogText] // a multiple of four
	}
	if text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err == nil {
		return string(text)
	}
	return v
}
