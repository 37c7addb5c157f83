package remote

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// clientCase is one case of facilitator-client.json: what the official client
// (core 2.27.0) makes of a facilitator's answers.
type clientCase struct {
	Name    string
	Answers []struct {
		Status  int
		Body    string
		Headers map[string]string
	} `json:"facilitatorAnswers"`
	Requests []string
	Result   map[string]any
	Error    map[string]any
}

// differs names the cases in which we judge otherwise than the official client,
// and why.
var differs = map[string]string{
	"verify: redirect 307":                   "we follow no redirect",
	"settle: transaction empty, amount null": "success without a transaction proves nothing",
	"settle: EXTENSION-RESPONSES header":     "0x1 is no transaction of an EVM chain",
}

func TestFacilitatorClientVectors(t *testing.T) {
	var file struct{ Cases []clientCase }
	vectors(t, "facilitator-client.json", &file)
	if len(file.Cases) != 16 {
		t.Fatalf("%d cases, want 16", len(file.Cases))
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			var requests []string
			f := at(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests = append(requests, r.Method+" "+r.URL.Path)
				answer := c.Answers[len(requests)-1]
				for name, value := range answer.Headers {
					w.Header().Set(name, value)
				}
				w.WriteHeader(answer.Status)
				_, _ = io.WriteString(w, answer.Body)
			}))+"//")
			f.sleep = func(context.Context, time.Duration) error { return nil }

			ok := askVector(t, f, c)
			if _, differ := differs[c.Name]; differ {
				if ok {
					t.Error("we judge as the official client does; take the case off the list")
				}
				return
			}
			if want := c.Error == nil && c.Result["success"] != false; ok != want {
				t.Errorf("got %t, want %t", ok, want)
			}
			if !slices.Equal(requests, c.Requests) {
				t.Errorf("requests %q, want %q", requests, c.Requests)
			}
		})
	}
}

// askVector asks what the case is about and reports a plain yes. It checks what
// else the case says of the result.
func askVector(t *testing.T, f *Facilitator, c clientCase) bool {
	t.Helper()
	call, _, _ := strings.Cut(c.Name, ":")
	switch call {
	case "supported":
		got, err := f.Supported(t.Context())
		if err == nil {
			var have map[string]any
			b, _ := json.Marshal(got)
			if err := json.Unmarshal(b, &have); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(have, c.Result) {
				t.Errorf("got %v, want %v", have, c.Result)
			}
		}
		return err == nil
	case "verify":
		got, err := f.Verify(t.Context(), request())
		if want, ok := c.Error["invalidReason"]; ok && (err != nil || got.Reason != want) {
			t.Errorf("got %+v, %v, want a no because of %s", got, err, want)
		}
		return err == nil && got.Valid
	case "settle":
		got := f.Settle(t.Context(), request())
		if reason, ok := c.Result["errorReason"]; ok && (got.Outcome != facilitator.Refused || got.Reason != reason) {
			t.Errorf("got %+v, want refused because of %s", got, reason)
		}
		// An error of the official client is a settle of which nobody knows.
		if c.Error != nil && got.Outcome != facilitator.Unknown {
			t.Errorf("got %+v, want unknown", got)
		}
		if want, ok := c.Error["transaction"]; ok && got.Transaction != want {
			t.Errorf("transaction %q, want %q", got.Transaction, want)
		}
		return got.Outcome == facilitator.Settled
	default:
		t.Fatalf("unknown call %q", call)
		return false
	}
}
