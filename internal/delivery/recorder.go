package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// An upstream that has acted must not be made to act again because its answer
// broke off on the way. So the paid answer to a method with effects is copied
// while it is sent, up to a bound; if the payer is lost, the upstream may finish,
// and the copy is what the payer fetches.

const (
	// maxCopy is how much of an answer's body is kept.
	maxCopy = 256 << 10
	// FinishWithin is how long an upstream may go on for a payer who has left.
	FinishWithin = 2 * time.Minute
)

// Recorder is a copy of an answer.
type Recorder struct {
	Status  int    `json:"status"`
	Header  fields `json:"header"`
	Body    []byte `json:"body"`
	Trailer fields `json:"trailer,omitempty"`

	announced []string // trailers
	over      bool     // it was too large, and nothing is kept
}

// fields are those of a header or trailer, with their values as bytes: many are in Latin-1,
// which is no text to JSON.
type fields map[string][][]byte

func (f fields) add(name string, values []string) {
	for _, v := range values {
		f[name] = append(f[name], []byte(v))
	}
}

// addTo puts them into a header.
func (f fields) addTo(header http.Header) {
	for name, values := range f {
		delete(header, name)
		for _, v := range values {
			header[name] = append(header[name], string(v))
		}
	}
}

// Begin records the status line.
func (r *Recorder) Begin(status int, header http.Header) {
	r.Status, r.Header, r.Trailer = status, fields{}, fields{}
	for name, values := range header {
		switch name {
		case "Connection", "Date", "Transfer-Encoding":
		case "Trailer":
			for _, list := range values {
				for name := range strings.SplitSeq(list, ",") {
					r.announced = append(r.announced, http.CanonicalHeaderKey(strings.TrimSpace(name)))
				}
			}
		default:
			r.Header.add(name, values)
		}
	}
}

// End records the trailers, which are in the header when the body is over, but for those
// that only we say.
func (r *Recorder) End(header http.Header) {
	if r == nil || r.Trailer == nil {
		return
	}
	for name, values := range header {
		trailer, unannounced := strings.CutPrefix(name, http.TrailerPrefix)
		if (unannounced || slices.Contains(r.announced, name)) && !isReceiptHeader(trailer) {
			r.Trailer.add(trailer, values)
		}
	}
}

// write records a part of the body.
func (r *Recorder) write(p []byte) {
	if r.over {
		return
	}
	if len(r.Body)+len(p) > maxCopy {
		r.over, r.Body = true, nil
		return
	}
	r.Body = append(r.Body, p...)
}

// Whole says whether the copy is the whole answer, as far as it declared its
// length. Nil is no copy.
func (r *Recorder) Whole() bool {
	if r == nil || r.over {
		return false
	}
	declared := r.Header["Content-Length"]
	return len(declared) == 0 || string(declared[0]) == strconv.Itoa(len(r.Body))
}

// Encode returns whose answer it is, for the ledger, and after that the copy, if there is
// one to replay.
func (r *Recorder) Encode(whose []byte) []byte {
	if r == nil || r.over || r.Status == http.StatusSwitchingProtocols {
		return whose
	}
	b, err := json.Marshal(r)
	if err != nil {
		return whose // it is listed as unconfirmed
	}
	return append(slices.Clone(whose), b...)
}

// HasCopy says whether a purchase has a copy of its answer. Where it could not be kept,
// there is only whose it was.
func HasCopy(row ledger.Payment) bool { return len(row.Answer) > credentialsLength }

// IsFor says whether a copy that was kept may go to a request: it has the credentials of
// the one that was answered.
func IsFor(kept []byte, r *http.Request, key ledger.Key) bool {
	return bytes.HasPrefix(kept, CredentialsOf(r, key))
}

// credentialWords are in the names of the headers that say to an upstream who asks.
// Several users may pay with one wallet. The signature of a message (RFC 9421) is another
// one each time, and says less.
var credentialWords = []string{
	"access", "account", "assertion", "auth", "cert", "client-id", "cookie", "credential", "email", "identity", "jwt", "key", "login",
	"password", "secret", "session", "sid", "ssl-client", "tenant", "token", "user",
}

// isCredential says whether a header may say who asks. The name of an order and a
// WebSocket's handshake say nothing of that.
func isCredential(name string) bool {
	name = strings.ToLower(name)
	return !strings.Contains(name, "idempotency") && !strings.HasPrefix(name, "sec-") && name != "user-agent" && !IsPayment(name) &&
		(name == "from" || slices.ContainsFunc(credentialWords, func(word string) bool { return strings.Contains(name, word) }))
}

// CredentialsOf is a digest of what a request says of who asks, for the answer to one
// payment.
func CredentialsOf(r *http.Request, key ledger.Key) []byte {
	sum := sha256.New()
	add := func(s string) { _, _ = fmt.Fprintf(sum, "%d:%s,", len(s), s) }
	add(string(key)) // so that the same credentials are not seen to be the same
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if isCredential(name) {
			add(name)
			for _, value := range r.Header[name] {
				add(value)
			}
		}
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		add("certificate")
		add(string(r.TLS.PeerCertificates[0].Raw))
	}
	return sum.Sum(nil)[:credentialsLength]
}

// credentialsLength is the length of such a digest, in bytes.
const credentialsLength = 16

// Replay is the handler that answers with a copy instead of the upstream.
func Replay(kept []byte) (caddyhttp.Handler, error) {
	var s Recorder
	if err := json.Unmarshal(kept[credentialsLength:], &s); err != nil {
		return nil, fmt.Errorf("reading a kept answer: %w", err)
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		header := w.Header()
		s.Header.addTo(header)
		if len(s.Trailer) > 0 {
			header.Del("Content-Length") // in HTTP/1.1 no trailers follow what has a length
			header["Trailer"] = slices.Sorted(maps.Keys(s.Trailer))
		}
		w.WriteHeader(s.Status)
		_, err := bytes.NewReader(s.Body).WriteTo(w)
		s.Trailer.addTo(header)
		return err
	}), nil
}

// Outlive returns a context for the upstream that does not end when the payer
// leaves, but a while later; at once if nothing was sold.
func Outlive(payer context.Context, sold func() bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(payer))
	stop := context.AfterFunc(payer, func() {
		if !sold() {
			cancel()
			return
		}
		timer := time.NewTimer(FinishWithin)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
			cancel()
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}
