package remote

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// TestWhatAFacilitatorSaysIsInTheDetail: an answer that decides nothing is told with its code,
// its message and its number, as facilitators and what stands before them word it. The payer
// gets none of it.
func TestWhatAFacilitatorSaysIsInTheDetail(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		want   string
	}{
		"CDP, 400": {
			400, nil, `{"errorType":"invalid_request","errorMessage":"must match one of [x402V2PaymentPayload]","correlationId":"8f1e-77"}`,
			"status 400, invalid_request: must match one of [x402V2PaymentPayload] (correlation id 8f1e-77)",
		},
		"CDP, 403": {
			403, nil, `{"errorType":"forbidden","errorMessage":"project may not settle","correlationId":"c1"}`,
			"status 403, forbidden: project may not settle (correlation id c1)",
		},
		"422":              {422, nil, `{"error":"amount below minimum of 1000"}`, "status 422: amount below minimum of 1000"},
		"an error object":  {422, nil, `{"error":{"code":"below_minimum","message":"0.001 USD at least"}}`, "status 422, below_minimum: 0.001 USD at least"},
		"a code in digits": {500, nil, `{"code":13,"message":"internal","requestId":"r-9"}`, "status 500, 13: internal (correlation id r-9)"},
		"a reason":         {500, nil, `{"errorReason":"unexpected_settle_error","errorMessage":"fetch failed"}`, "status 500, unexpected_settle_error: fetch failed"},
		"HTML":             {502, http.Header{"Cf-Ray": {"abc-FRA"}}, "<!DOCTYPE html>\n<html><head><title>502 Bad\n Gateway</title><style>x</style></head><body>x</body></html>", "status 502: 502 Bad Gateway (correlation id abc-FRA)"},
		"HTML, no title":   {503, nil, "<h1>Service &amp; Co</h1><script>alert(1)</script><p>is away</p>", "status 503: Service & Co is away"},
		"text":             {500, http.Header{"X-Request-Id": {"q"}}, "Internal Server Error\n", "status 500: Internal Server Error (correlation id q)"},
		"nothing":          {500, nil, "", "status 500"},
		"controls":         {500, nil, "{\"error\":\"a\\u0000b\\u001b[31mc\\nd\"}", "status 500: a b [31mc"},
	} {
		t.Run(name, func(t *testing.T) {
			f := at(t, serve(t, &fixed{status: c.status, header: c.header, body: c.body}))
			v, err := f.Verify(t.Context(), request())
			s := f.Settle(t.Context(), request())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("verify: %v\nwant %s", err, c.want)
			}
			if s.Outcome != facilitator.Unknown || !strings.Contains(s.Detail, c.want) {
				t.Errorf("settle: %s\nwant %s", s.Detail, c.want)
			}
			for _, text := range []string{fmt.Sprint(err), s.Detail} {
				if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 1000 || strings.Count(text, c.want) != 1 {
					t.Errorf("unfit for a log: %q", text)
				}
			}
			if s.Reason != "settlement_pending" || v.Reason != "" {
				t.Errorf("the payer is told %q and %q", s.Reason, v.Reason)
			}
		})
	}
}

// TestLongWordsOfAFacilitatorAreCut: what it says is bounded, whatever it is.
func TestLongWordsOfAFacilitatorAreCut(t *testing.T) {
	long := strings.Repeat("word ", 2000)
	for _, body := range []string{long, "<title>" + long + "</title>", `{"errorType":"` + long + `","errorMessage":"` + long + `","correlationId":"` + long + `"}`} {
		f := at(t, serve(t, &fixed{status: 500, body: body}))
		_, err := f.Verify(t.Context(), request())
		if n := len(err.Error()); n > 700 {
			t.Errorf("%d bytes", n)
		}
	}
}

// FuzzDetail: whatever a facilitator answers, the log gets one bounded line of it.
func FuzzDetail(f *testing.F) {
	f.Add(400, []byte(`{"error":{"code":1,"message":"x"}}`), "id")
	f.Add(500, []byte("<title>\xff</title><script>"), "\x00")
	f.Fuzz(func(t *testing.T, status int, body []byte, id string) {
		text := (&Facilitator{}).detail(answer{status: status, body: body, correlation: id})
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 800 {
			t.Errorf("%q", text)
		}
	})
}
