package remote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

type cdpVectors struct {
	ClockUnixSeconds int64
	Keys             struct {
		Ed25519 struct{ APIKeySecret string }
		ES256   struct{ PrivateScalarHex string }
	}
	Vectors []struct {
		Key, Method, Path string
		Header, Claims    map[string]any
		JWT               string
	}
}

func loadCDP(t testing.TB) (v cdpVectors) {
	t.Helper()
	vectors(t, "cdp-jwt.json", &v)
	if len(v.Vectors) != 6 {
		t.Fatalf("%d vectors, want 6", len(v.Vectors))
	}
	return v
}

// p256 is the ES256 key of the vectors.
func p256(t testing.TB, v cdpVectors) *ecdsa.PrivateKey {
	t.Helper()
	scalar, err := hex.DecodeString(v.Keys.ES256.PrivateScalarHex)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func sec1(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func TestCDPVectors(t *testing.T) {
	v := loadCDP(t)
	ec := p256(t, v)
	secrets := map[string]string{"Ed25519": v.Keys.Ed25519.APIKeySecret, "ES256": pkcs8(t, ec)}
	for _, c := range v.Vectors {
		t.Run(c.Key+" "+c.Path, func(t *testing.T) {
			signer, err := newCDP(c.Header["kid"].(string), secrets[c.Key])
			if err != nil {
				t.Fatal(err)
			}
			nonce, _ := hex.DecodeString(c.Header["nonce"].(string))
			signer.rand = io.MultiReader(bytes.NewReader(nonce), rand.Reader)
			signer.now = func() time.Time { return time.Unix(v.ClockUnixSeconds, 0) }

			r, _ := http.NewRequest(c.Method, "https://api.cdp.coinbase.com"+c.Path, nil)
			if err := signer.authorize(r); err != nil {
				t.Fatal(err)
			}
			got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			if c.Key == "Ed25519" && got != c.JWT {
				t.Errorf("got  %s\nwant %s", got, c.JWT)
			}
			checkToken(t, got, c.Header, c.Claims)
			if c.Key == "ES256" {
				checkES256(t, got, &ec.PublicKey)
				checkES256(t, c.JWT, &ec.PublicKey)
			}
		})
	}
}

func checkToken(t *testing.T, token string, header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	for i, want := range []map[string]any{header, claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("part %d: got %v, want %v", i, got, want)
		}
	}
}

func checkES256(t *testing.T, token string, key *ecdsa.PublicKey) {
	t.Helper()
	signed, encoded, _ := strings.Cut(token, ".")
	claims, encoded, _ := strings.Cut(encoded, ".")
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(signature) != 64 {
		t.Fatalf("signature of %d bytes, %v", len(signature), err)
	}
	digest := sha256.Sum256([]byte(signed + "." + claims))
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		t.Error("signature does not verify")
	}
}

// A token is for one path of one host, and no two are alike.
func TestCDPTokenIsForOneRequest(t *testing.T) {
	var tokens []string
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}))
	f, _ := provision(t, &Facilitator{
		URL:  url + "/platform/v2/x402/",
		Auth: &Auth{Type: "cdp", KeyID: "id", KeySecret: loadCDP(t).Keys.Ed25519.APIKeySecret},
	})
	_, _ = f.Verify(t.Context(), request())
	f.Settle(t.Context(), request())
	f.Settle(t.Context(), request())
	_, _ = f.Supported(t.Context())
	host := strings.TrimPrefix(url, "http://")
	for i, want := range []string{"POST " + host + "/platform/v2/x402/verify", "POST " + host + "/platform/v2/x402/settle", "POST " + host + "/platform/v2/x402/settle", "GET " + host + "/platform/v2/x402/supported"} {
		var claims struct{ URIs []string }
		b, _ := base64.RawURLEncoding.DecodeString(strings.Split(tokens[i], ".")[1])
		if err := json.Unmarshal(b, &claims); err != nil || len(claims.URIs) != 1 || claims.URIs[0] != want {
			t.Errorf("token %d is for %v, want %s", i, claims.URIs, want)
		}
	}
	if tokens[1] == tokens[2] {
		t.Error("two settles carry the same token")
	}
}

func TestCDPKeys(t *testing.T) {
	v := loadCDP(t)
	ec := p256(t, v)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := v.Keys.Ed25519.APIKeySecret
	halves, _ := base64.StdEncoding.DecodeString(ed)
	halves[40] ^= 1
	oneLine := func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }

	for name, c := range map[string]struct{ secret, alg string }{
		"Ed25519":                {ed, "EdDSA"},
		"PKCS#8":                 {pkcs8(t, ec), "ES256"},
		"SEC1":                   {sec1(t, ec), "ES256"},
		"PKCS#8 in one line":     {oneLine(pkcs8(t, ec)), "ES256"},
		"SEC1 in one line":       {oneLine(sec1(t, ec)), "ES256"},
		"SEC1, Windows":          {strings.ReplaceAll(sec1(t, ec), "\n", `\r\n`), "ES256"},
		"Ed25519, wrong half":    {base64.StdEncoding.EncodeToString(halves), ""},
		"Ed25519, seed only":     {base64.StdEncoding.EncodeToString(halves[:32]), ""},
		"Ed25519, cut off":       {ed[:len(ed)-4], ""},
		"another curve":          {pkcs8(t, p384), ""},
		"a public key":           {strings.ReplaceAll(sec1(t, ec), "PRIVATE", "PUBLIC")[:60], ""},
		"PEM with nothing in it": {"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", ""},
		"text":                   {"canary-secret", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newCDP("id", c.secret)
			switch {
			case (err != nil) != (c.alg == ""):
				t.Errorf("error %v", err)
			case err == nil && got.alg != c.alg:
				t.Errorf("alg %s, want %s", got.alg, c.alg)
			case err != nil && (strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), c.secret)):
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

// Without a token nothing is sent.
func TestCDPWithoutRandomness(t *testing.T) {
	s := &fixed{status: 200, body: settledBody()}
	f, _ := provision(t, &Facilitator{
		URL:  serve(t, s),
		Auth: &Auth{Type: "cdp", KeyID: "id", KeySecret: loadCDP(t).Keys.Ed25519.APIKeySecret},
	})
	f.auth.(*cdp).rand = iotest.ErrReader(io.ErrUnexpectedEOF)
	if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unsent || s.hits.Load() != 0 {
		t.Errorf("got %+v after %d requests, want unsent", got, s.hits.Load())
	}
}
