package x402

import (
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// vectorTime is the clock of all vectors.
var vectorTime = time.Unix(1767225600, 0)

// The life that tests ask of an authorization: enough to settle, and not
// longer than the ledger remembers.
const (
	minLife = 20 * time.Second
	maxLife = 25 * time.Hour
)

// load reads a vector file from testdata.
func load[T any](t testing.TB, name string) T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(b, &v, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// payerVector is an entry of the exact-evm and upto-evm files.
type payerVector struct {
	Name            string
	PaymentRequired struct{ Accepts []Requirement } `json:"paymentRequired"`
	Challenge       string                          `json:"paymentRequiredHeader"`
	Payment         jsontext.Value                  `json:"paymentPayload"`
	Header          string                          `json:"paymentSignatureHeader"`
	HeaderV1        string                          `json:"xPaymentHeader"`
}

func payerVectors(t testing.TB, name string) []payerVector {
	t.Helper()
	return load[struct{ Vectors []payerVector }](t, name+".json").Vectors
}

// usdc is the requirement that most vectors are about.
func usdc() Requirement {
	return Requirement{
		Scheme: "exact", Network: "eip155:84532", Amount: "10000",
		Asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", PayTo: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
		MaxTimeoutSeconds: 300, Extra: jsontext.Value(`{"name":"USDC","version":"2"}`),
	}
}

// header makes request headers of name, value pairs.
func header(kv ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return h
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// decodeV2JSON decodes text as a version 2 payment.
func decodeV2JSON(text string) (*Payment, error) {
	return Decode(header(HeaderPaymentSignature, b64(text)))
}

// code returns the code of an error, "" for nil, and fails for other errors.
func code(t testing.TB, err error) Code {
	t.Helper()
	if err == nil {
		return ""
	}
	e := &Error{}
	ok := errors.As(err, &e)
	if !ok {
		t.Fatalf("error is %T, not *Error: %v", err, err)
	}
	return e.Code
}

// tree reads JSON for structural comparison.
func tree(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
	return v
}

// str encodes a tree.
func str(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
