package dialect

import (
	"net/http"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// v2 is version 2 of x402: all of it in headers.
type v2 struct{}

func (v2) Names() (paid, answered []string) { return namesV2.paid, namesV2.answered }

func (v2) Payment(header http.Header) (*x402.Payment, error) {
	return x402.DecodeV2(header[x402.HeaderPaymentSignature])
}

func (v2) Challenge(header http.Header, asked *x402.Template, url string, code x402.Code) []byte {
	header[x402.HeaderPaymentRequired] = []string{asked.Header(url, code)}
	return nil
}

func (v2) Receipt(header http.Header, receipt *x402.Receipt) {
	header[x402.HeaderPaymentResponse] = []string{receipt.Encode()}
}

// v1 is version 1 of x402: the challenge is the body.
type v1 struct{}

func (v1) Names() (paid, answered []string) { return namesV1.paid, namesV1.answered }

func (v1) Payment(header http.Header) (*x402.Payment, error) {
	return x402.DecodeXPayment(header[x402.HeaderXPayment])
}

func (v1) Challenge(_ http.Header, asked *x402.Template, url string, code x402.Code) []byte {
	return asked.AppendBody(nil, url, code)
}

func (v1) Receipt(header http.Header, receipt *x402.Receipt) {
	own := receipt.V1()
	header[x402.HeaderXPaymentResponse] = []string{own.Encode()}
}

// both is a payment that is said in version 1 and in version 2, or in the header of the one
// and the words of the other.
type both struct{ v2 }

func (both) Receipt(header http.Header, receipt *x402.Receipt) {
	v2{}.Receipt(header, receipt)
	v1{}.Receipt(header, receipt)
}

// names are those of a dialect. They are asked for with each request.
type names struct{ paid, answered []string }

var (
	namesV2 = names{
		paid:     []string{x402.HeaderPaymentSignature},
		answered: []string{x402.HeaderPaymentResponse, x402.HeaderPaymentRequired},
	}
	namesV1 = names{
		paid:     []string{x402.HeaderXPayment},
		answered: []string{x402.HeaderXPaymentResponse},
	}
)
