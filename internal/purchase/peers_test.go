package purchase

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestAnAccountSaysWhetherAnybodyIsServed: who is told that nobody is waits, and sells
// nothing twice.
func TestAnAccountSaysWhetherAnybodyIsServed(t *testing.T) {
	const key = ledger.Key("eip3009:1")
	for name, tt := range map[string]struct {
		do         func(*Shared)
		unrecorded bool
		lost       bool
	}{
		"somebody is served":               {func(s *Shared) { s.Held.add(key, 1) }, false, false},
		"the payer has left":               {func(s *Shared) { s.Held.add(key, 1); s.Held.payerLeft(key) }, false, true},
		"the answer is no goods":           {func(s *Shared) { s.Held.add(key, 1); s.Held.givesNothing(key) }, false, true},
		"what is owed is not recorded yet": {func(s *Shared) { s.Held.add(key, 1) }, true, true},
		"no request holds it":              {func(*Shared) {}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewShared()
			tt.do(s)
			var a account
			if err := json.Unmarshal(s.Account(context.Background(), key, true, func(ledger.Key) bool { return tt.unrecorded }), &a); err != nil || a.Lost != tt.lost || a.Order {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// TestAnAccountTellsAnOrder by a hash of its name and its body.
func TestAnAccountTellsAnOrder(t *testing.T) {
	s := NewShared()
	row := ledger.Payment{Key: "eip3009:1", Payer: "0xa", Line: "l", Method: "POST", Host: "h", URL: "/"}
	s.Held.add(row.Key, 1)
	if _, alone := s.Orders.enter(t.Context(), row, "my secret name", nil); !alone {
		t.Fatal("it is not alone")
	}
	if said := s.Account(t.Context(), "another's", false, func(ledger.Key) bool { return false }); said != nil {
		t.Errorf("of what is not here: %s", said)
	}
	var a account
	said := s.Account(t.Context(), row.Key, true, func(ledger.Key) bool { return false })
	if err := json.Unmarshal(said, &a); err != nil || !a.Order || a.Lost || a.Body == "" || a.Name != hashName("my secret name") || a.Name == hashName("another") {
		t.Errorf("%s, %v", said, err)
	}
}
