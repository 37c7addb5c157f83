package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	baseSepolia = "eip155:84532"
	payer       = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	stranger    = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	solana      = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
	solanaTx    = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"

	// canaryPayment stands for what a payment must keep secret until it is
	// settled.
	canaryPayment = "0xcanaryc0ffee0000000000000000000000000000000000000000000000000000canaryc0ffee0000000000000000000000000000000000000000000000000000aa1b"
)

// tx is a plausible EVM transaction.
var tx = "0x" + strings.Repeat("ab", 32)

// request is a version 2 payment on Base Sepolia.
func request() facilitator.Request {
	return facilitator.Request{
		Payment: &x402.Payment{
			Version: x402.V2,
			Scheme:  "exact",
			Network: baseSepolia,
			Payload: jsontext.Value(`{"signature":"` + canaryPayment + `"}`),
			Raw:     jsontext.Value(`{"x402Version":2,"payload":{"signature":"` + canaryPayment + `"}}`),
		},
		Requirement: x402.Requirement{
			Scheme: "exact", Network: baseSepolia, Amount: "10000",
			Asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", PayTo: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
			MaxTimeoutSeconds: 300,
		},
		Resource: x402.Resource{URL: "https://shop.example/a"},
		Payer:    payer,
	}
}

// requestV1 is the same payment as version 1 has it.
func requestV1() facilitator.Request {
	r := request()
	r.Payment.Version = x402.V1
	r.Payment.Raw = jsontext.Value(`{"x402Version":1,"scheme":"exact","network":"base-sepolia","payload":{"signature":"0x1"}}`)
	r.Payment.Payload = jsontext.Value(`{"signature":"0x1"}`)
	return r
}

// on moves a request to another network.
func on(r facilitator.Request, network, payer string) facilitator.Request {
	r.Payment.Network, r.Requirement.Network, r.Payer = network, network, payer
	return r
}

// provision makes a facilitator as Caddy would, with a log to look into.
func provision(t testing.TB, f *Facilitator) (*Facilitator, *observer.ObservedLogs) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := f.Provision(ctx); err != nil {
		t.Fatalf("Provision: %v", err)
	}
	if err := f.Validate(); err != nil {
		t.Fatalf("Validate: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Cleanup(); err != nil {
			t.Errorf("Cleanup: %v", err)
		}
	})
	core, logs := observer.New(zapcore.DebugLevel)
	f.logger = zap.New(core)
	return f, logs
}

// at is a facilitator without credentials that asks url.
func at(t testing.TB, url string) *Facilitator {
	t.Helper()
	f, _ := provision(t, &Facilitator{URL: url})
	return f
}

// fixed answers every request alike, and counts them.
type fixed struct {
	status int
	header http.Header
	body   string
	hits   atomic.Int32
}

func (s *fixed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.hits.Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	maps.Copy(w.Header(), s.header)
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, s.body)
}

// serve starts a server that ends with the test.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// raw starts a server that hands each connection to handle, and counts them.
func raw(t testing.TB, handle func(net.Conn)) (url string, accepted *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	accepted = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go handle(c)
		}
	}()
	return "http://" + l.Addr().String(), accepted
}

// readRequest reads one request off a raw connection, body included.
func readRequest(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	var head strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			return false
		}
		head.Write(one)
	}
	_, after, found := strings.Cut(head.String(), "Content-Length: ")
	if !found {
		return true
	}
	var size int64
	_, _ = fmt.Sscanf(after, "%d", &size)
	_, err := io.CopyN(io.Discard, c, size)
	return err == nil
}

// reset closes a connection so that the other side sees a reset.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// vectors reads a file of testdata.
func vectors(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// logText is everything that was logged, as text.
func logText(logs *observer.ObservedLogs) string {
	var b strings.Builder
	for _, e := range logs.All() {
		fmt.Fprintln(&b, e.Message, e.ContextMap())
	}
	return b.String()
}
