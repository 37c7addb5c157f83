package remote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// cdpLifetime is how long a token is good for. One token serves one request.
const cdpLifetime = 120 * time.Second

// cdp signs a JSON Web Token for each request, as the Coinbase Developer
// Platform wants it: for one method and one URL, for two minutes.
type cdp struct {
	id     string
	alg    string
	key    crypto.Signer
	hidden []string

	now  func() time.Time
	rand io.Reader
}

func newCDP(id, secret string) (*cdp, error) {
	key, alg, err := parseCDPKey(secret)
	if err != nil {
		return nil, err
	}
	return &cdp{id: id, alg: alg, key: key, hidden: []string{secret}, now: time.Now, rand: rand.Reader}, nil
}

// authorize implements authorizer.
func (c *cdp) authorize(r *http.Request) error {
	token, err := c.token(r.Method, r.URL.Host+r.URL.EscapedPath())
	if err != nil {
		return fmt.Errorf("making the CDP token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// secrets implements authorizer.
func (c *cdp) secrets() []string { return c.hidden }

// token makes the token for one request. The order of the members is that of the
// official SDK.
func (c *cdp) token(method, hostAndPath string) (string, error) {
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(c.rand, nonce); err != nil {
		return "", err
	}
	now := c.now().Unix()
	head, err := segment(struct {
		Alg   string `json:"alg"`
		Kid   string `json:"kid"`
		Typ   string `json:"typ"`
		Nonce string `json:"nonce"`
	}{c.alg, c.id, "JWT", hex.EncodeToString(nonce)})
	if err != nil {
		return "", err
	}
	claims, err := segment(struct {
		Sub  string   `json:"sub"`
		Iss  string   `json:"iss"`
		URIs []string `json:"uris"`
		Iat  int64    `json:"iat"`
		Nbf  int64    `json:"nbf"`
		Exp  int64    `json:"exp"`
	}{c.id, "cdp", []string{method + " " + hostAndPath}, now, now, now + int64(cdpLifetime/time.Second)})
	if err != nil {
		return "", err
	}
	signed := head + "." + claims
	signature, err := c.sign([]byte(signed))
	if err != nil {
		return "", err
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (c *cdp) sign(message []byte) ([]byte, error) {
	switch key := c.key.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, message), nil
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(message)
		r, s, err := ecdsa.Sign(c.rand, key, digest[:])
		if err != nil {
			return nil, err
		}
		// RFC 7518, section 3.4: both numbers, each at full length.
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return signature, nil
	default:
		return nil, errors.New("no key")
	}
}

// segment encodes one of the first two parts of a token.
func segment(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

var errCDPKey = errors.New("key_secret is neither the base64 of an Ed25519 key (64 bytes) nor a PEM of a P-256 key; copy it again from the CDP portal")

// parseCDPKey reads either kind of key that CDP hands out. Errors do not repeat
// the key.
func parseCDPKey(secret string) (crypto.Signer, string, error) {
	if raw, err := base64.StdEncoding.DecodeString(secret); err == nil && len(raw) == ed25519.PrivateKeySize {
		key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		if !bytes.Equal(key, raw) {
			return nil, "", errors.New("the two halves of the Ed25519 key in key_secret do not belong together; copy it again from the CDP portal")
		}
		return key, "EdDSA", nil
	}
	// Line breaks rarely survive an environment variable.
	text := strings.ReplaceAll(strings.ReplaceAll(secret, `\r`, ""), `\n`, "\n")
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, "", errCDPKey
	}
	key, err := parseECKey(block.Bytes)
	if err != nil {
		return nil, "", err
	}
	return key, "ES256", nil
}

// parseECKey reads PKCS#8, and SEC1 for older keys.
func parseECKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, errCDPKey
		}
		var ok bool
		if key, ok = parsed.(*ecdsa.PrivateKey); !ok {
			return nil, errCDPKey
		}
	}
	if key.Curve != elliptic.P256() {
		return nil, errCDPKey
	}
	return key, nil
}
