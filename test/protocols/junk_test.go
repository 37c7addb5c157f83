package protocols

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// junk is a payment header that pays for nothing.
type junk struct {
	what, name, value string
	// code, if not empty, is the reason that must be given.
	code x402.Code
}

// junkPayments makes what is wrong out of a payment that is right.
func junkPayments(t *testing.T, offered x402.Requirement) (all []junk) {
	const v2, v1 = "PAYMENT-SIGNATURE", "X-PAYMENT"
	add := func(what, name, value string, code x402.Code) { all = append(all, junk{what, name, value, code}) }
	good, another := gate.Sign(t, offered), gate.Sign(t, offered)
	goodV2, goodV1 := good.V2(t), good.V1(t)
	plain := func(header string) string {
		raw, err := base64.StdEncoding.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

	// Not base64, or not JSON in it.
	for _, s := range []string{
		"", " ", "x", "%%%", "null", "{}", "-", "=", "====", "QQ", "QQ=", "QQ==", "QR==", "Q Q=", "aGVsbG8=", "aGVsbG8", "bnVsbA==", "e30=", "W10=",
		"dHJ1ZQ==", "MQ==", "IiI=", "Bearer x", "0x00", "\t", "é", "\x7f", "\"" + goodV2 + "\"", goodV2 + "\t\t.", goodV2 + "====", "=" + goodV2, goodV2[1:], goodV2[:len(goodV2)-1] + "*",
		plain(goodV2), plain(goodV1), strings.Repeat("A", 8<<10), strings.Repeat("A", 12<<10), strings.Repeat("=", 1000), "data:application/json;base64," + goodV2, "PAYMENT-SIGNATURE: " + goodV2,
	} {
		add("text", v2, s, "")
		add("text", v1, s, "")
	}
	for i, raw := range []string{plain(goodV2), plain(goodV1)} {
		name := []string{v2, v1}[i]
		// Cut short, or with something behind.
		for n := 1; n < len(raw); n += len(raw) / 40 {
			add(fmt.Sprint("cut after ", n), name, b64(raw[:n]), x402.CodePaymentMalformed)
		}
		for _, s := range []string{"x", "{}", raw, "]", ",", "\x00", "//"} {
			add("followed by "+s[:1], name, b64(raw+s), x402.CodePaymentMalformed)
			add("preceded by "+s[:1], name, b64(s+raw), x402.CodePaymentMalformed)
		}
		for _, s := range []string{"[" + raw + "]", `"` + raw + `"`, "\ufeff\ufeff" + raw, strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300), "[[" + raw + "]]"} {
			add("wrapped", name, b64(s), x402.CodePaymentMalformed)
		}
		if name == v1 {
			add("the other version's header", v2, b64(raw), x402.CodeUnsupportedVersion)
		}
		add("two in a list", name, b64(raw)+","+[]string{another.V2(t), another.V1(t)}[i], x402.CodeAmbiguousPayment)
		add("utf-16", name, b64("\xff\xfe"+strings.Join(strings.Split(raw, ""), "\x00")), x402.CodePaymentMalformed)

		// Each member missing, doubled, under another name, and of another kind.
		var object map[string]any
		if err := json.Unmarshal([]byte(raw), &object); err != nil {
			t.Fatal(err)
		}
		for _, path := range members(object, "") {
			if path == "accepted.maxTimeoutSeconds" || path == "accepted.extra" || strings.HasPrefix(path, "accepted.extra.") {
				continue // what clients leave out or alter without harm, or is compared as a whole
			}
			parts := strings.Split(path, ".")
			at := parts[len(parts)-1]
			bend := func(what string, change func(parent map[string]any)) {
				var copied map[string]any
				_ = json.Unmarshal([]byte(raw), &copied)
				parent := copied
				for _, p := range parts[:len(parts)-1] {
					parent = parent[p].(map[string]any)
				}
				change(parent)
				bent, _ := json.Marshal(copied)
				add(path+" "+what, name, b64(string(bent)), "")
			}
			bend("missing", func(m map[string]any) { delete(m, at) })
			bend("misnamed", func(m map[string]any) { m[strings.ToUpper(at)] = m[at]; delete(m, at) })
			for _, v := range []any{nil, true, 7, -1, 1.5, 1e30, "", "\x00", "null", []any{}, map[string]any{}, []any{map[string]any{}}, strings.Repeat("9", 100), "0x", " 1", "1 ", "+1", "1e3", "-0", "٣"} {
				if at == "validAfter" && v == 7 {
					continue // a time that was not signed, which only a facilitator can judge
				}
				bend(fmt.Sprintf("= %.20v (%T)", v, v), func(m map[string]any) { m[at] = v })
			}
			text, _ := json.Marshal(at)
			add(path+" doubled", name, b64(strings.Replace(raw, string(text)+":", string(text)+":0,"+string(text)+":", 1)), x402.CodePaymentMalformed)
		}
	}
	// Garbage inside: every byte but the structure replaced at random.
	random := rand.New(rand.NewPCG(4, 2))
	for range 60 {
		b := []byte(plain(goodV2))
		for range 1 + random.IntN(8) {
			b[random.IntN(len(b))] = byte(random.IntN(256))
		}
		if json.Valid(b) {
			continue // may be a payment with another signature, which only a facilitator can judge
		}
		add("random bytes", v2, b64(string(b)), "")
	}
	return all
}

// members are the paths of all members of an object.
func members(object map[string]any, prefix string) (all []string) {
	for name, value := range object {
		all = append(all, prefix+name)
		if inner, ok := value.(map[string]any); ok {
			all = append(all, members(inner, prefix+name+".")...)
		}
	}
	return all
}

// TestJunkPayments: a payment header that is no payment is answered with 402, a
// stable reason and a fresh challenge, by nobody but the gate.
func TestJunkPayments(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{})
	c := w.Gated.Client(t, "h1")
	all := junkPayments(t, c.Offer(w.Request(http.MethodGet, "/x")))
	stable := regexp.MustCompile(`^[a-z0-9_]+$`)
	codes := map[string]int{}
	senders := map[string]*gate.Client{}
	for _, protocol := range gate.Protocols {
		senders[protocol] = w.Gated.Client(t, protocol)
	}
	for i, junk := range all {
		for j, protocol := range gate.Protocols {
			if j > 0 && i%10 != j {
				continue // the first takes them all, the others a sample
			}
			r := w.Request(http.MethodGet, "/x")
			r.Header[http.CanonicalHeaderKey(junk.name)] = []string{junk.value}
			res, err := senders[protocol].Start(r)
			if err != nil {
				if strings.ContainsAny(junk.value, "\x00\x7f") {
					continue // no client can send that
				}
				t.Fatalf("%s: %v", junk.what, err)
			}
			challenge, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
			_ = res.Body.Close()
			if res.StatusCode != http.StatusPaymentRequired || err != nil || len(challenge.Accepts) == 0 {
				t.Errorf("%s (%s: %.200s): %d %v", junk.what, junk.name, junk.value, res.StatusCode, err)
				continue
			}
			if !stable.MatchString(challenge.Error) || junk.code != "" && challenge.Error != string(junk.code) {
				t.Errorf("%s (%s): the reason is %q, want %q", junk.what, junk.name, challenge.Error, junk.code)
			}
			codes[challenge.Error]++
		}
	}
	t.Logf("%d payments: %v", len(all), codes)
	if len(all) < 500 {
		t.Errorf("%d payments, want 500", len(all))
	}
	if w.Upstream.Hits.Load() != 0 || w.Facilitator.Calls() != 0 {
		t.Errorf("%d hits, the facilitator was asked %d times", w.Upstream.Hits.Load(), w.Facilitator.Calls())
	}
}
