// Package dialect has the ways in which a payment is said on the wire: how a challenge goes
// out, how a payment comes in, and how a receipt goes out. Who sells, settles and remembers
// does not know which one it was: what was signed is the same in each, and buys once.
package dialect

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Dialect is a way to say a payment.
type Dialect interface {
	// Payment reads the payment that a request's header holds. Its errors are of the type
	// *x402.Error. It is asked where the header has values of those that Names calls paid.
	Payment(header http.Header) (*x402.Payment, error)
	// Challenge says in the header of an answer what is asked for, and why what came does
	// not pay for it. What it returns is the body, in JSON, if nobody else says anything
	// there; nil is nothing.
	Challenge(header http.Header, asked *x402.Template, url string, code x402.Code) (body []byte)
	// Receipt says in the header of an answer what became of a payment.
	Receipt(header http.Header, receipt *x402.Receipt)
	// Names are the headers in which one pays, and those in which the gate answers: no
	// upstream sees the former, and none says the latter.
	Names() (paid, answered []string)
}

// All are the dialects, the one first that clients should speak.
func All() []Dialect { return all }

// all is made once, since each request asks for them.
var all = []Dialect{v2{}, v1{}}

// Names are the headers of all dialects; see Dialect.
func Names() (paid, answered []string) {
	for _, d := range All() {
		p, a := d.Names()
		paid, answered = append(paid, p...), append(answered, a...)
	}
	return paid, answered
}

var errTwo = errors.New("one of two payment headers cannot be read")

// Read reads the payment that a request's header holds, and how it is said; nil if there
// is none. Some payers say it in two dialects at once, and their receipt goes out in both; two
// payments are refused with x402.CodeAmbiguousPayment: whoever reads the header after us might
// pick the other one.
func Read(header http.Header) (*x402.Payment, Dialect, error) {
	var said Dialect
	var found []*x402.Payment
	var broken error
	count := 0
	for _, d := range all {
		if !isIn(header, d) {
			continue
		}
		count++
		p, err := d.Payment(header)
		if err != nil {
			broken = err
			continue
		}
		found, said = append(found, p), d
	}
	switch {
	case count == 0:
		return nil, nil, nil
	case broken != nil && count == 1:
		return nil, nil, broken
	case broken != nil:
		return nil, nil, &x402.Error{Code: x402.CodeAmbiguousPayment, Err: errTwo}
	}
	p, err := x402.One(found...)
	if err != nil {
		return nil, nil, err
	}
	if count > 1 || said == Dialect(v1{}) && p.Version == x402.V2 {
		said = both{} // nobody knows which one the payer reads
	}
	return p, said, nil
}

// isIn says whether a header has values in which one pays in a dialect.
func isIn(header http.Header, d Dialect) bool {
	paid, _ := d.Names()
	return slices.ContainsFunc(paid, func(name string) bool { return len(header[name]) > 0 })
}
