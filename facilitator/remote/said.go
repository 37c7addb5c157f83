package remote

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxCode bounds a code and the number of a call, and maxRead what is looked at of a body
	// that is no JSON.
	maxCode = 100
	maxRead = 8 << 10
)

// said is what an answer says besides what decides: for an operator, who may have to ask the
// facilitator's operator about it. Nothing of it goes to a payer.
type said struct{ code, message, correlation string }

// correlationHeaders are those in which facilitators, and what stands before them, give a call
// its number.
var correlationHeaders = []string{"X-Correlation-Id", "Correlation-Id", "X-Request-Id", "X-Amzn-Requestid", "Cf-Ray"}

// saidIn reads an answer as facilitators word their errors: those of x402, those of the
// Coinbase Developer Platform, an error with a code and a message, a page.
func saidIn(a answer) said {
	s := said{correlation: a.correlation}
	m, err := parse(a.body)
	if err != nil {
		s.message = pageText(a.body)
		return s
	}
	s.code = firstText(m.ErrorReason, m.InvalidReason, m.ErrorType, m.Code)
	s.message = firstText(m.ErrorMessage, m.InvalidMessage, m.Message, m.Error)
	if m.Error.Kind() == jsontext.KindBeginObject {
		if inner, err := parse(m.Error); err == nil {
			if s.code == "" {
				s.code = firstText(inner.Code, inner.ErrorType)
			}
			if s.message == "" {
				s.message = firstText(inner.Message, inner.ErrorMessage)
			}
		}
	}
	if id := firstText(m.CorrelationID, m.RequestID); id != "" {
		s.correlation = id
	}
	return s
}

// firstText is the first of some members that has a text, or a number.
func firstText(list ...jsontext.Value) string {
	for _, v := range list {
		switch v.Kind() {
		case jsontext.KindString:
			if s := lenientText(v); s != "" {
				return s
			}
		case jsontext.KindNumber:
			return string(v)
		}
	}
	return ""
}

var (
	pageTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	pageCode  = regexp.MustCompile(`(?is)<(script|style)[^>]*>.*?</(script|style)>`)
	pageTag   = regexp.MustCompile(`<[^>]*>`)
)

// pageText is what a body says that is no JSON: the title of a page, or its text.
func pageText(body []byte) string {
	text := string(body[:min(len(body), maxRead)])
	if title := pageTitle.FindStringSubmatch(text); title != nil {
		text = title[1]
	}
	text = html.UnescapeString(pageTag.ReplaceAllString(pageCode.ReplaceAllString(text, " "), " "))
	return strings.Join(strings.Fields(text), " ")
}

// detail words an answer for the log, in one bounded line.
func (f *Facilitator) detail(a answer) string {
	said := saidIn(a)
	s := fmt.Sprintf("status %d", a.status)
	if code := f.cleanCode(said.code); code != "" {
		s += ", " + code
	}
	if message := f.cleanText(said.message); message != "" {
		s += ": " + message
	}
	if id := f.cleanCode(said.correlation); id != "" {
		s += " (correlation id " + id + ")"
	}
	return s
}

// cleanCode is cleanText for what is short by nature.
func (f *Facilitator) cleanCode(s string) string {
	s = f.cleanText(s)
	if len(s) > maxCode {
		s = strings.ToValidUTF8(s[:maxCode], "") + "…"
	}
	return s
}

// correlation is the number that an answer's header gives the call, or "".
func correlation(h http.Header) string {
	for _, name := range correlationHeaders {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}

// movedTo is where a redirect leads, as it would stand in the config: without the name of the
// call. What else a path, or a query, may hold is nobody's business.
func (f *Facilitator) movedTo(resp *http.Response, op string) string {
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	address := url.URL{Scheme: to.Scheme, Host: to.Host}
	if base, ok := strings.CutSuffix(to.EscapedPath(), "/"+op); ok {
		address.Path = base
	}
	return f.cleanText(address.String())
}
