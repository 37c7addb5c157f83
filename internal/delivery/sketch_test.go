package delivery

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestSketchesTellBodiesApart: short ones by their digests, long ones by those of their
// beginnings where they differ.
func TestSketchesTellBodiesApart(t *testing.T) {
	sketch := func(body string, most int) string {
		var b *Body
		if body != "" {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader([]byte(body)))
			r.ContentLength = -1
			_, b = WrapBody(r, BoundUpload(httptest.NewRecorder(), r, UploadGrace))
		}
		s := b.Sketch(t.Context())
		if len(s) > most {
			t.Errorf("a sketch of %d bytes", len(s))
		}
		return s
	}
	read := func(body string) string { // of one that has come to its end
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader([]byte(body)))
		r, b := WrapBody(r, BoundUpload(httptest.NewRecorder(), r, UploadGrace))
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		return b.Sketch(t.Context())
	}
	long := string(bytes.Repeat([]byte("a"), maxAhead+10))
	for name, tt := range map[string]struct {
		a, b string
		want Likeness
	}{
		"the same":                      {sketch("one", 200), sketch("one", 200), Same},
		"others":                        {sketch("one", 200), sketch("two", 200), Different},
		"none, and one":                 {sketch("", 200), sketch("one", 200), Different},
		"none at both":                  {sketch("", 200), sketch("", 200), Same},
		"long ones that begin alike":    {sketch(long, 200), sketch(long+"b", 200), Unclear},
		"long ones that begin apart":    {sketch(long, 200), sketch("b"+long, 200), Different},
		"a long one, and it as a whole": {sketch(long, 200), read(long), Unclear},
		"long ones as a whole":          {read(long), read(long), Same},
		"long ones that end apart":      {read(long), read(long + "b"), Different},
		"a long one, and another whole": {sketch("b"+long, 200), read(long), Different},
		"a short one, and a long one":   {sketch("one", 200), sketch(long, 200), Different},
		"none, and a long one":          {sketch("", 200), sketch(long, 200), Different},
		"one that nobody has sent yet":  {"", sketch("one", 200), Unclear},
	} {
		if got := CompareSketches(tt.a, tt.b); got != tt.want || CompareSketches(tt.b, tt.a) != tt.want {
			t.Errorf("%s: %d, want %d; %q %q", name, got, tt.want, tt.a, tt.b)
		}
	}
}
