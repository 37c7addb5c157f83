package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// The answers that the scripts below give.
const (
	head      = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
	verifyYes = `{"isValid":true}`
)

func settledBody() string {
	return `{"success":true,"transaction":"` + tx + `",` + netw + `}`
}

// After a settle was sent, whatever the network does, nobody knows. Threats 29,
// 36, 44.
func TestSettleFaultsAfterSendingAreUnknown(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"reset before the headers": func(c net.Conn) { readRequest(c); reset(c) },
		"close before the headers": func(c net.Conn) { readRequest(c); _ = c.Close() },
		"reset after the headers": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"200\r\n\r\n")
			reset(c)
		},
		"close inside the body": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"500\r\n\r\n"+settledBody())
			_ = c.Close()
		},
		"broken chunks": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"+settledBody())
			_ = c.Close()
		},
		"no HTTP at all": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
			_ = c.Close()
		},
		"headers without end": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2*maxHeaderBytes))
			_ = c.Close()
		},
		"reset in the middle of the request": func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 40)
			reset(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, accepted := raw(t, handle)
			got := at(t, url).Settle(t.Context(), request())
			if got.Outcome != facilitator.Unknown || got.Reason != "settlement_pending" {
				t.Errorf("got %+v, want unknown", got)
			}
			if n := accepted.Load(); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

// Hanging and dripping end with the context, and not before it.
func TestSettleGivesUpWithItsContext(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"hang": func(c net.Conn) { readRequest(c) },
		"drip": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"60000\r\n\r\n")
			for range 200 {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := raw(t, handle)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			got := at(t, url).Settle(ctx, request())
			if got.Outcome != facilitator.Unknown {
				t.Errorf("got %+v, want unknown", got)
			}
			if took := time.Since(start); took > 800*time.Millisecond {
				t.Errorf("took %s", took)
			}
		})
	}
}

// An endless answer is cut off, and not read to its end.
func TestEndlessAnswerIsCutOff(t *testing.T) {
	var written atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := io.WriteString(w, strings.Repeat(" ", 32<<10))
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	f := at(t, url)
	if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unknown {
		t.Errorf("settle: %+v", got)
	}
	if v, err := f.Verify(t.Context(), request()); err == nil || v.Valid {
		t.Errorf("verify: %+v", v)
	}
	if n := written.Load(); n > 64<<20 {
		t.Errorf("the server got rid of %d bytes", n)
	}
}

func TestVerifyFaultsAreNoAnswer(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"reset before the headers": func(c net.Conn) { readRequest(c); reset(c) },
		"reset after the headers": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"200\r\n\r\n")
			reset(c)
		},
		"answer without its end": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"100\r\n\r\n"+verifyYes)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := raw(t, handle)
			v, err := at(t, url).Verify(t.Context(), request())
			if e, ok := errors.AsType[*facilitator.Error](err); !ok || v.Valid || e.Code != facilitator.CodeUnavailable {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}
