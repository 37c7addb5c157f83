// Package dialect has the ways in which a payment is said on the wire: how a challenge goes
// out, how a payment comes in, and how a receipt goes out. Who sells, settles and remembers
// does not know which one it was: what was signed is the same in each, and buys once.
package dialect

import (
	"errors"
	"net/http"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Dialect is a way to say a payment.
type Dialect interface {
	// Payment reads the payment that a request's header holds. Its errors are of the type
	// *x402.Error. It is asked where the header has exactly one value of those that Names
	// calls paid.
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

var errTwo = errors.New("more than one payment header")

// Read reads the payment that a request's header holds, and how it is said; nil if there
// is none. Two are refused with x402.CodeAmbiguousPayment: whoever reads the header after
// us might pick the other one.
func Read(header http.Header) (*x402.Payment, Dialect, error) {
	var said Dialect
	count := 0
	for _, d := range all {
		paid, _ := d.Names()
		for _, name := range paid {
			if n := len(header[name]); n > 0 {
				said = d
				count += n
			}
		}
	}
	switch count {
	case 0:
		return nil, nil, nil
	case 1:
		p, err := said.Payment(header)
		return p, said, err
	default:
		return nil, nil, &x402.Error{Code: x402.CodeAmbiguousPayment, Err: errTwo}
	}
}
