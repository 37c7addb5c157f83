package x402

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestDecodeBase64Vectors compares our base64 and JSON with the official
// decoder of PAYMENT-SIGNATURE. The rows where we differ say why.
func TestDecodeBase64Vectors(t *testing.T) {
	differs := map[string]string{
		"url-safe alphabet": "more lenient: some base64 libraries default to it, and it has one meaning",
		"JSON null":         "stricter: a payment is an object; the official server fails one step later",
		"JSON array":        "stricter: as null",
	}
	file := load[struct {
		Rows []struct {
			Name, Input string
			Accepted    bool
			Value       jsontext.Value
		} `json:"decodePaymentSignature"`
	}](t, "headers.json")
	for _, row := range file.Rows {
		t.Run(row.Name, func(t *testing.T) {
			raw, err := decodeHeader(row.Input)
			ok := err == nil
			if ok {
				_, err = readObject(raw, namesV2, make([]jsontext.Value, len(namesV2)))
				ok = err == nil
			}
			_, known := differs[row.Name]
			if (ok != row.Accepted) != known {
				t.Fatalf("accepted %v (%v), official %v, difference named: %v", ok, err, row.Accepted, known)
			}
			if ok && row.Accepted && !reflect.DeepEqual(tree(t, raw), tree(t, row.Value)) {
				t.Errorf("decoded %s, want %s", raw, row.Value)
			}
		})
	}
}

// TestEncodeVectors decodes what the official packages encoded and compares
// our encoding of the same objects, structurally.
func TestEncodeVectors(t *testing.T) {
	file := load[struct {
		Rows []struct {
			Name, Header, Value string
			JSON                jsontext.Value
		} `json:"encode"`
	}](t, "headers.json")
	for _, row := range file.Rows {
		t.Run(row.Name, func(t *testing.T) {
			var ours string
			switch row.Header {
			case "PAYMENT-REQUIRED":
				c, err := DecodeChallenge(row.Value)
				if err != nil {
					t.Fatal(err)
				}
				tpl, err := NewTemplate(c.Accepts, c.Resource.Description, c.Resource.MimeType, c.Extensions)
				if err != nil {
					t.Fatal(err)
				}
				ours = tpl.Header(c.Resource.URL, Code(c.Error))
			case "PAYMENT-RESPONSE":
				r, err := DecodeReceipt(row.Value)
				if err != nil {
					t.Fatal(err)
				}
				ours = r.Encode()
			default:
				t.Fatalf("header %s", row.Header)
			}
			got, err := base64.StdEncoding.DecodeString(ours)
			if err != nil {
				t.Fatal(err)
			}
			want, err := base64.StdEncoding.DecodeString(row.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(tree(t, got), tree(t, want)) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestBase64Dialects: four spellings of the same bytes are read, disguises are
// not.
func TestBase64Dialects(t *testing.T) {
	const plain = `{"a":"` + "ÿþ?~>>" + `"}` // has + and / in base64, needs padding
	std, url := b64(plain), base64.URLEncoding.EncodeToString([]byte(plain))
	if !strings.ContainsAny(std, "+/") || !strings.HasSuffix(std, "=") {
		t.Fatal("sample does not show the dialects")
	}
	loose := strings.TrimRight(std, "=")
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", loose[len(loose)-1])
	loose = loose[:len(loose)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[last+1])

	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"standard padded":          {std, true},
		"standard unpadded":        {strings.TrimRight(std, "="), true},
		"url-safe padded":          {url, true},
		"url-safe unpadded":        {strings.TrimRight(url, "="), true},
		"both alphabets":           {"+-" + std, false},
		"one pad too many":         {std + "=", false},
		"padding in the middle":    {"eyJ9==" + std, false},
		"non-zero trailing bits":   {loose, false},
		"the same, padded":         {loose + strings.Repeat("=", len(std)-len(loose)), false},
		"leading space":            {" " + std, false},
		"trailing space":           {std + " ", false},
		"line feed":                {std[:4] + "\n" + std[4:], false},
		"carriage return":          {std[:4] + "\r" + std[4:], false},
		"tab":                      {std[:4] + "\t" + std[4:], false},
		"NUL":                      {std[:4] + "\x00" + std[4:], false},
		"trailing line feed":       {std + "\n", false},
		"percent-encoded padding":  {strings.TrimRight(std, "=") + "%3D", false},
		"raw JSON":                 {plain, false},
		"one character":            {"e", false},
		"five characters, no pad":  {"eyJ9e", false},
		"only padding":             {"====", false},
		"dot of a JWT":             {std + "." + std, false},
		"non-ASCII look-alike":     {"е" + std[1:], false},
		"url-safe with loose bits": {strings.NewReplacer("+", "-", "/", "_").Replace(loose), false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := decodeBase64(c.in)
			if (err == nil) != c.ok {
				t.Fatalf("got %q, %v", b, err)
			}
			if c.ok && string(b) != plain {
				t.Errorf("got %q", b)
			}
		})
	}
}
