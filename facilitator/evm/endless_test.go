package evm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestEndlessAnswer: a node cannot make us read for ever.
func TestEndlessAnswer(t *testing.T) {
	r, unix := good(t)
	var written atomic.Int64
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `["`)
		for written.Load() < 64<<20 {
			n, err := io.WriteString(w, strings.Repeat("a", 1<<18))
			if err != nil {
				return
			}
			written.Add(int64(n))
		}
	})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{url}}, newClock(unix))
	_, err := f.Verify(context.Background(), r)
	if !errors.Is(err, errTooLong) {
		t.Errorf("error %v", err)
	}
	if n := written.Load(); n > 8*maxAnswer {
		t.Errorf("%d bytes were taken", n)
	}
}
