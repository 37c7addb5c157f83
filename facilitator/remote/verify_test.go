package remote

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// oddBodies are no answers, to /verify and to /settle, under any status.
// Threats 1 and 2.
var oddBodies = map[string]string{
	"empty":                   "",
	"blank":                   " \n",
	"empty object":            "{}",
	"null":                    "null",
	"string":                  `"true"`,
	"bare true":               "true",
	"number":                  "1",
	"array":                   "[]",
	"array around an answer":  `[{"isValid":true,"success":true}]`,
	"object in an object":     `{"data":{"isValid":true,"success":true}}`,
	"html":                    "<!doctype html><title>Welcome</title>",
	"text":                    "OK",
	"string true":             `{"isValid":"true","success":"true"}`,
	"string yes":              `{"isValid":"yes","success":"yes"}`,
	"number one":              `{"isValid":1,"success":1}`,
	"null members":            `{"isValid":null,"success":null}`,
	"array member":            `{"isValid":[true],"success":[true]}`,
	"object member":           `{"isValid":{"value":true},"success":{"value":true}}`,
	"other case":              `{"isvalid":true,"Success":true,"IsValid":true,"SUCCESS":true}`,
	"python spelling":         `{"is_valid":true,"succeeded":true}`,
	"TRUE":                    `{"isValid":TRUE,"success":TRUE}`,
	"truncated in the value":  `{"isValid":tru`,
	"truncated before brace":  `{"isValid":true,"success":true`,
	"truncated in a name":     `{"isValid":true,"success":true,"pay`,
	"trailing word":           `{"isValid":true,"success":true} ok`,
	"trailing object":         `{"isValid":true,"success":true}{"isValid":true,"success":true}`,
	"trailing brace":          `{"isValid":true,"success":true}}`,
	"trailing null byte":      "{\"isValid\":true,\"success\":true}\x00",
	"leading text":            `)]}'{"isValid":true,"success":true}`,
	"byte order mark":         "\xef\xbb\xbf{\"isValid\":true,\"success\":true}",
	"twice, no then yes":      `{"isValid":false,"success":false,"isValid":true,"success":true}`,
	"twice, yes then yes":     `{"isValid":true,"success":true,"isValid":true,"success":true}`,
	"twice by an escape":      `{"isValid":true,"success":true,"is\u0056alid":false,"succe\u0073s":false}`,
	"invalid UTF-8":           "{\"isValid\":true,\"success\":true,\"payer\":\"\xff\"}",
	"lone surrogate":          `{"isValid":true,"success":true,"payer":"\ud800"}`,
	"comment":                 `{"isValid":true,/* sure */"success":true}`,
	"trailing comma":          `{"isValid":true,"success":true,}`,
	"single quotes":           `{'isValid':true,'success':true}`,
	"error object":            `{"error":"bad gateway"}`,
	"CDP error":               `{"errorType":"internal_server_error","errorMessage":"oops","correlationId":"1"}`,
	"deep nesting":            strings.Repeat("[", 20000),
	"control character":       "{\"isValid\":true,\"success\":true,\"payer\":\"\n\"}",
	"gzip":                    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\xca\x2c",
	"too long":                `{"isValid":true,"success":true,"pad":"` + strings.Repeat("x", maxAnswer) + `"}`,
	"long after a short body": `{"isValid":true,"success":true}` + strings.Repeat(" ", maxAnswer),
}

// statuses under which the odd bodies come. 204 and 304 cannot carry one.
var statuses = []int{200, 201, 202, 400, 401, 402, 403, 404, 412, 429, 500, 502, 503}

func TestVerifyTakesNoOddBodyForAnAnswer(t *testing.T) {
	s := &fixed{}
	f := at(t, serve(t, s))
	for name, body := range oddBodies {
		for _, status := range statuses {
			s.status, s.body = status, body
			v, err := f.Verify(t.Context(), request())
			e, ok := errors.AsType[*facilitator.Error](err)
			if !ok || v.Valid || v.Reason != "" {
				t.Errorf("%s, status %d: got %+v, %v, want no answer", name, status, v, err)
				continue
			}
			if e.Status != http.StatusBadGateway && e.Status != http.StatusServiceUnavailable {
				t.Errorf("%s, status %d: suggests status %d", name, status, e.Status)
			}
		}
	}
}

func TestVerify(t *testing.T) {
	var (
		yes  = facilitator.Verdict{Valid: true}
		none = func(c x402.Code, status int) *facilitator.Error { return &facilitator.Error{Code: c, Status: status} }
		no   = func(reason string) facilitator.Verdict { return facilitator.Verdict{Reason: reason} }
	)
	invalid := none(facilitator.CodeInvalidAnswer, 502)
	down := none(facilitator.CodeUnavailable, 503)

	for name, c := range map[string]struct {
		status  int
		body    string
		request facilitator.Request
		want    facilitator.Verdict
		err     *facilitator.Error
	}{
		"yes":                          {status: 200, body: `{"isValid":true}`, want: yes},
		"yes with payer":               {status: 200, body: `{"isValid":true,"payer":"` + payer + `"}`, want: facilitator.Verdict{Valid: true, Payer: payer}},
		"yes, payer in lower case":     {status: 200, body: `{"isValid":true,"payer":"` + strings.ToLower(payer) + `"}`, want: facilitator.Verdict{Valid: true, Payer: strings.ToLower(payer)}},
		"yes, nulls":                   {status: 200, body: `{"isValid":true,"invalidReason":null,"payer":null,"extra":null}`, want: yes},
		"yes, empty reason":            {status: 200, body: `{"isValid":true,"invalidReason":"","payer":""}`, want: yes},
		"yes, unknown members":         {status: 200, body: `{"isValid":true,"remainingUses":3,"extra":[],"extensions":7}`, want: yes},
		"yes, blanks around":           {status: 200, body: " \r\n{ \"isValid\" : true }\n", want: yes},
		"yes, 201":                     {status: 201, body: `{"isValid":true}`, want: yes},
		"yes, somebody else":           {status: 200, body: `{"isValid":true,"payer":"` + stranger + `"}`, err: invalid},
		"yes, payer a number":          {status: 200, body: `{"isValid":true,"payer":7}`, err: invalid},
		"yes, with a reason":           {status: 200, body: `{"isValid":true,"invalidReason":"insufficient_funds"}`, err: invalid},
		"yes, reason of odd type":      {status: 200, body: `{"isValid":true,"invalidReason":{}}`, err: invalid},
		"yes, payer, ours unknown":     {status: 200, body: `{"isValid":true,"payer":"` + stranger + `"}`, request: on(request(), baseSepolia, ""), want: facilitator.Verdict{Valid: true, Payer: stranger}},
		"yes, payer no address":        {status: 200, body: `{"isValid":true,"payer":"some body"}`, request: on(request(), baseSepolia, ""), want: yes},
		"yes, Solana, other case":      {status: 200, body: `{"isValid":true,"payer":"abc"}`, request: on(request(), solana, "ABC"), err: invalid},
		"yes, 400":                     {status: 400, body: `{"isValid":true}`, err: invalid},
		"yes, 403":                     {status: 403, body: `{"isValid":true}`, err: down},
		"yes, 500":                     {status: 500, body: `{"isValid":true}`, err: down},
		"yes, 304":                     {status: 304, err: invalid},
		"yes, 204":                     {status: 204, err: invalid},
		"yes, 302":                     {status: 302, body: `{"isValid":true}`, err: invalid},
		"no, 302":                      {status: 302, body: `{"isValid":false}`, err: invalid},
		"no, 200":                      {status: 200, body: `{"isValid":false,"invalidReason":"insufficient_funds"}`, want: no("insufficient_funds")},
		"no, 400":                      {status: 400, body: `{"isValid":false,"invalidReason":"invalid_payload"}`, want: no("invalid_payload")},
		"no, 412":                      {status: 412, body: `{"isValid":false,"invalidReason":"permit2_allowance_required"}`, want: no("permit2_allowance_required")},
		"no, 500":                      {status: 500, body: `{"isValid":false,"invalidReason":"invalid_payload"}`, want: no("invalid_payload")},
		"no, without reason":           {status: 200, body: `{"isValid":false}`, want: no("payment_invalid")},
		"no, null reason":              {status: 200, body: `{"isValid":false,"invalidReason":null}`, want: no("payment_invalid")},
		"no, reason is prose":          {status: 200, body: `{"isValid":false,"invalidReason":"RPC https://node.example/KEY said no"}`, want: no("payment_invalid")},
		"no, reason of odd type":       {status: 200, body: `{"isValid":false,"invalidReason":["x"]}`, want: no("payment_invalid")},
		"no, of somebody else":         {status: 200, body: `{"isValid":false,"invalidReason":"invalid_payload","payer":"` + stranger + `"}`, want: no("invalid_payload")},
		"408":                          {status: 408, body: `{}`, err: none(facilitator.CodeTimeout, 503)},
		"504":                          {status: 504, body: `timeout`, err: none(facilitator.CodeTimeout, 503)},
		"429":                          {status: 429, body: `{"error":"slow down"}`, err: down},
		"404":                          {status: 404, body: `not found`, err: invalid},
		"answer of /settle by mistake": {status: 200, body: `{"success":true,"transaction":"` + tx + `","network":"` + baseSepolia + `"}`, err: invalid},
	} {
		t.Run(name, func(t *testing.T) {
			f := at(t, serve(t, &fixed{status: c.status, body: c.body}))
			r := c.request
			if r.Payment == nil {
				r = request()
			}
			got, err := f.Verify(t.Context(), r)
			got.Detail = ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			e, _ := errors.AsType[*facilitator.Error](err)
			switch {
			case (e == nil) != (c.err == nil):
				t.Errorf("error %v, want %v", err, c.err)
			case e != nil && (e.Code != c.err.Code || e.Status != c.err.Status):
				t.Errorf("error %s %d (%v), want %s %d", e.Code, e.Status, e, c.err.Code, c.err.Status)
			}
		})
	}
}

func TestVerifyPassesRetryAfterOnBounded(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"7":                             7 * time.Second,
		"86400":                         facilitator.MaxRetryAfter,
		"-5":                            0,
		"soon":                          0,
		"99999999999999999999":          0,
		"Wed, 21 Oct 2015 07:28:00 GMT": 0,
		"Wed, 21 Oct 2065 07:28:00 GMT": facilitator.MaxRetryAfter,
	} {
		for _, status := range []int{429, 503} {
			f := at(t, serve(t, &fixed{status: status, header: http.Header{"Retry-After": {value}}}))
			_, err := f.Verify(t.Context(), request())
			e, ok := errors.AsType[*facilitator.Error](err)
			if !ok || e.RetryAfter != want {
				t.Errorf("%d with Retry-After %q: got %v, want %v", status, value, err, want)
			}
		}
	}
}

func TestVerifyTimesOut(t *testing.T) {
	release := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release) }) // before the server closes
	f := at(t, url)
	f.Timeout = 50e6
	_, err := f.Verify(t.Context(), request())
	e, ok := errors.AsType[*facilitator.Error](err)
	if !ok || e.Code != facilitator.CodeTimeout || e.Status != http.StatusServiceUnavailable {
		t.Errorf("got %v, want %s", err, facilitator.CodeTimeout)
	}
}
