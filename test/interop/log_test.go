package interop

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
)

// logTo keeps what a process says and shows it when the test has failed.
func logTo(t *testing.T, name string) io.Writer {
	l := new(processLog)
	t.Cleanup(func() {
		if t.Failed() {
			fmt.Fprintf(t.Output(), "---- %s ----\n%s", name, l)
		}
	})
	return l
}

type processLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *processLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *processLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
