package remote

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// oracle reads an answer with another decoder than ours. It is laxer (letter
// case, repeated names), so what it does not see is not there.
func oracle(body string) (m map[string]any) {
	if json.Unmarshal([]byte(body), &m) != nil {
		return nil
	}
	return m
}

func FuzzVerifyAnswer(f *testing.F) {
	for _, body := range oddBodies {
		if len(body) < 1000 {
			f.Add(200, body)
		}
	}
	f.Add(200, `{"isValid":true,"payer":"`+payer+`"}`)
	f.Add(400, `{"isValid":false,"invalidReason":"insufficient_funds"}`)
	judge := new(Facilitator)
	f.Fuzz(func(t *testing.T, status int, body string) {
		v, err := judge.judgeVerify(answer{status: status, body: []byte(body)}, request())
		m := oracle(body)
		if v.Valid {
			if err != nil || status < 200 || status > 299 || m["isValid"] != true {
				t.Fatalf("status %d, %q is taken for a yes", status, body)
			}
			if p, _ := m["payer"].(string); p != "" && !strings.EqualFold(p, payer) {
				t.Fatalf("%q pays for us", p)
			}
		}
		if err == nil && !v.Valid && (m["isValid"] != false || v.Reason == "") {
			t.Fatalf("status %d, %q is taken for a no", status, body)
		}
	})
}

func FuzzSettleAnswer(f *testing.F) {
	for _, body := range oddBodies {
		if len(body) < 1000 {
			f.Add(200, body)
		}
	}
	f.Add(200, settledBody())
	f.Add(500, `{"success":false,"errorReason":"settlement_pending","transaction":"`+tx+`",`+netw+`}`)
	f.Add(400, `{"success":false,"errorReason":"insufficient_funds","transaction":"",`+netw+`,"payer":"`+payer+`"}`)
	judge := new(Facilitator)
	f.Fuzz(func(t *testing.T, status int, body string) {
		s := judge.judgeSettle(answer{status: status, body: []byte(body)}, request(), 2)
		m := oracle(body)
		transaction, _ := m["transaction"].(string)
		reason, _ := m["errorReason"].(string)
		if p, _ := m["payer"].(string); s.Outcome != facilitator.Unknown && p != "" && !strings.EqualFold(p, payer) {
			t.Fatalf("%s for somebody else: %q", s.Outcome, body)
		}
		switch s.Outcome {
		case facilitator.Unknown:
		case facilitator.Settled:
			if status < 200 || status > 299 || m["success"] != true || m["network"] != baseSepolia || reason != "" ||
				len(transaction) != 66 || s.Transaction != transaction {
				t.Fatalf("status %d, %q is taken for settled", status, body)
			}
		case facilitator.Refused:
			if m["success"] != false || transaction != "" || !nothingMoved(reason, "") || s.Reason == "" {
				t.Fatalf("status %d, %q is taken for refused", status, body)
			}
		default:
			t.Fatalf("%s after it was sent", s.Outcome)
		}
	})
}
