package paywall

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// checkContact refuses what no payer could follow.
func checkContact(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "https" && u.Host != "" && u.User == nil || u.Scheme == "mailto" && strings.Contains(u.Opaque, "@")) {
		return nil
	}
	return fmt.Errorf("contact: want a URL such as https://shop.example/help or mailto:help@shop.example, not %q", s)
}

// language is a media type in which the gate answers by itself.
type language int

const (
	asJSON language = iota
	asMarkdown
	asText
	asHTML
)

var mediaTypes = [...]string{"application/json", "text/markdown; charset=utf-8", "text/plain; charset=utf-8", "text/html; charset=utf-8"}

// languageFor is in what the client of a request wants to read. Who does not say that he
// reads texts rather gets JSON, as the clients of version 1 need it; so does who pays as they
// do, whatever he says.
func languageFor(r *http.Request) language {
	if isBrowser(r) {
		return asHTML
	}
	if len(r.Header[x402.HeaderXPayment]) > 0 {
		return asJSON
	}
	const never = -1.0
	json, markdown, text, wild := never, never, never, never
	for item := range headers.Members(r.Header["Accept"]) {
		kind, parameters, _ := strings.Cut(item, ";")
		q := qualityIn(parameters)
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/json":
			json = max(json, q)
		case "text/markdown":
			markdown = max(markdown, q)
		case "text/plain":
			text = max(text, q)
		case "*/*", "application/*":
			wild = max(wild, q)
		}
	}
	// A type that is named says more than one that is only not excluded.
	if best := max(markdown, text); best > 0 && best > json && best >= wild {
		if markdown == best {
			return asMarkdown
		}
		return asText
	}
	return asJSON
}

// qualityIn is the q among the parameters of a media range (RFC 9110, 12.4.2).
func qualityIn(parameters string) float64 { //nolint:forbidigo // a weight in Accept
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			if q, err := strconv.ParseFloat(strings.TrimSpace(value), 32); err == nil && q >= 0 && q <= 1 {
				return q
			}
			return 0
		}
	}
	return 1
}

// wordsOf are what a payer reads of a refusal.
func (h *Handler) wordsOf(f *purchase.Refusal) string {
	if said := f.Words(time.Duration(h.RetryWindow)); said != "" {
		return said
	}
	switch f.Code {
	case purchase.CodeRefused:
		return "This is not for sale."
	case purchase.CodeMethodNotAllowed:
		return "This can be bought with other methods only: " + strings.Join(f.Allow, ", ") + "."
	case purchase.CodeAmbiguousPath:
		return "This request can be read in several ways that cost different things, so it is not sold. Write the URL in its plain form: without escapes, doubled slashes and dot segments, and without headers that name another path, method or host."
	case purchase.CodeUndecided, purchase.CodeChargedTwice:
		return "The seller's configuration does not say what this costs, so it is not sold. This request has not been charged. Tell the seller."
	}
	return ""
}

// refusalIn writes a refusal down in a language.
func (h *Handler) refusalIn(as language, f *purchase.Refusal) []byte {
	message := h.wordsOf(f)
	title := http.StatusText(f.Status)
	switch as {
	case asMarkdown:
		return textOf("# "+title, message, linked("Help: ", h.Contact, "<", ">"), "Code: `"+string(f.Code)+"`")
	case asText:
		return textOf(title, message, linked("Help: ", h.Contact, "", ""), "Code: "+string(f.Code))
	case asHTML:
		help := ""
		if h.Contact != "" {
			help = `<p><a href="` + html.EscapeString(h.Contact) + `">Help</a></p>`
		}
		return []byte("<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>" + html.EscapeString(title) + "</title><h1>" + html.EscapeString(title) + "</h1><p>" +
			html.EscapeString(message) + "</p>" + help + "<p>Code: <code>" + html.EscapeString(string(f.Code)) + "</code></p></html>\n")
	}
	body, err := json.Marshal(struct {
		Error   x402.Code `json:"error"`
		Message string    `json:"message,omitzero"`
		Help    string    `json:"help,omitzero"`
	}{f.Code, message, h.Contact})
	if err != nil {
		return nil // the status says enough
	}
	return body
}

// challengeIn writes down in a text what is asked for.
func challengeIn(as language, asked *x402.Template, code x402.Code) []byte {
	words := asked.Words()
	reason := string(code)
	if code == x402.CodePaymentRequired {
		reason = ""
	}
	if as == asMarkdown {
		return textOf("# Payment required", words.Description, "**Price: "+words.Price+"**", code.Message(), linked("Help: ", words.Help, "<", ">"), linked("Error: ", reason, "`", "`"))
	}
	return textOf("Payment required: "+words.Price, words.Description, code.Message(), linked("Help: ", words.Help, "", ""), linked("Error: ", reason, "", ""))
}

// linked puts what may be empty between words.
func linked(before, what, left, right string) string {
	if what == "" {
		return ""
	}
	return before + left + what + right
}

// textOf puts the paragraphs of a text together.
func textOf(paragraphs ...string) []byte {
	var b strings.Builder
	for _, p := range paragraphs {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(p)
	}
	b.WriteByte('\n')
	return []byte(b.String())
}
