package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	bare := strings.TrimPrefix(testPrivate, "0x")
	for in, ok := range map[string]bool{
		testPrivate: true, bare: true, "  " + testPrivate + "\r\n": true, strings.ToUpper(bare): true,
		"": false, "0x": false, bare[1:]: false, bare + "0": false, "0x0x" + bare[2:]: false,
		strings.Repeat("0", 64): false, strings.Repeat("f", 64): false, strings.Replace(bare, "a", "g", 1): false,
	} {
		k, err := ParseKey(in)
		if (err == nil) != ok || ok && k.Address() != payer {
			t.Errorf("%q: %v, %v", in, k, err)
		}
		want := errBadKey
		if len(in) == 64 && strings.Trim(in, in[:1]) == "" { // whoever has written 64 digits is not told to write 64 digits
			want = errNoAccount
		}
		if err != nil && !errors.Is(err, want) {
			t.Errorf("the error could tell the key, or says something else: %v", err)
		}
	}
}

// TestKeyNeverShows: in every way that Go programs print, log or encode things,
// alone and within other values.
func TestKeyNeverShows(t *testing.T) {
	k := testKey(t)
	type around struct {
		Key    *Key
		hidden *Key
		value  Key
	}
	var shown bytes.Buffer
	for _, v := range []any{k, *k, around{k, k, *k}, &around{k, k, *k}, []*Key{k}, map[string]Key{"k": *k}, &Client{Key: k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b"} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
		if _, isClient := v.(*Client); !isClient {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			shown.Write(b)
		}
		slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "v", v)
	}
	number := k.private.D
	secrets := []string{
		strings.TrimPrefix(testPrivate, "0x"), number.String(), fmt.Sprintf("%o", number), fmt.Sprintf("%b", number),
		fmt.Sprint(number.Bits()), fmt.Sprint(number.Bytes()), fmt.Sprint(number.Bits()[0]),
	}
	text := strings.ToLower(shown.String())
	for _, s := range secrets {
		if strings.Contains(text, strings.Trim(s, "[]")) {
			t.Errorf("shows as %.20s…", s)
		}
	}
	if !strings.Contains(text, strings.ToLower(payer)) {
		t.Error("does not show the address")
	}
	if s := fmt.Sprint((*Key)(nil)); s != "<nil>" {
		t.Error(s)
	}
}

// TestPaymentShowsNoSignature: printing what was paid does not print what was
// signed.
func TestPaymentShowsNoSignature(t *testing.T) {
	s := newSeller(t)
	c, _ := newClient(t)
	result, err := c.Do(s.get(t, "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer result.Response.Body.Close()
	if text := fmt.Sprintf("%+v %+v", *result.Payment, result.Payment); strings.Contains(text, result.Payment.signed.value) {
		t.Error("shows the signature")
	}
}
