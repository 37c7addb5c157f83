package chain

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

// TestEndlessAnswer: a node cannot make us read for ever.
func TestEndlessAnswer(t *testing.T) {
	var written atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `["`)
		for written.Load() < 64<<20 {
			n, err := io.WriteString(w, strings.Repeat("a", 1<<18))
			if err != nil {
				return
			}
			written.Add(int64(n))
		}
	}))
	defer s.Close()
	l, err := NewLook(map[string][]string{baseSepolia: {s.URL}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Genesis(t.Context(), baseSepolia)
	if !errors.Is(err, errTooLong) {
		t.Errorf("error %v", err)
	}
	if n := written.Load(); n > 8*maxAnswer {
		t.Errorf("%d bytes were taken", n)
	}
}
