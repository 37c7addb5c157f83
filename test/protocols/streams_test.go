package protocols

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestStreams: each event of a paid stream arrives before the next is made, with
// the receipt in front of them all.
func TestStreams(t *testing.T) {
	for _, around := range []string{"", "encode gzip"} {
		w := gate.NewTwins(t, gate.TwinsConfig{Around: around, Prices: "price /first $0.01 {\n settle first\n}\nprice /held $0.01"})
		next := make(chan bool)
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				_, _ = fmt.Fprintf(rw, "data: %d\n\n", i)
				_ = http.NewResponseController(rw).Flush()
				<-next
			}
		})
		for _, protocol := range gate.Protocols {
			for _, path := range []string{"/first", "/held"} {
				t.Run(around+protocol+path, func(t *testing.T) {
					c := w.Gated.Client(t, protocol)
					r := w.Request(http.MethodGet, path)
					if around != "" {
						r.Header.Set("Accept-Encoding", "gzip")
					}
					res, err := c.Start(c.Paying(r))
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					if receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse)); err != nil || !receipt.Success {
						t.Fatalf("no receipt: %v %v", res.Header, err)
					}
					in := bufio.NewReader(res.Body)
					if around != "" {
						z, err := gzip.NewReader(res.Body)
						if err != nil {
							t.Fatal(err)
						}
						in = bufio.NewReader(z)
					}
					for i := range 3 {
						line, err := in.ReadString('\n')
						if err != nil || line != fmt.Sprintf("data: %d\n", i) {
							t.Fatalf("event %d: %q %v", i, line, err)
						}
						_, _ = in.ReadString('\n')
						next <- true
					}
					if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 {
						t.Errorf("%q %v", rest, err)
					}
				})
			}
		}
	}
}

// TestClientLeavesStream: an endless stream ends at the upstream when its client
// leaves, and nothing of it stays.
func TestClientLeavesStream(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /first $0.01 {\n settle first\n}\nprice /held $0.01"})
	var running atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		rw.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, "data: x\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	for _, protocol := range gate.Protocols {
		t.Run(protocol, func(t *testing.T) {
			w.T = t
			c := w.Gated.Client(t, protocol)
			round := func() {
				var streams []*http.Response
				var leave []context.CancelFunc
				for i := range 10 {
					ctx, cancel := context.WithCancel(context.Background())
					leave = append(leave, cancel)
					r := c.Paying(w.Request(http.MethodGet, []string{"/first", "/held"}[i%2])).WithContext(ctx)
					res, err := c.Start(r)
					if err != nil {
						t.Fatal(err)
					}
					streams = append(streams, res)
					if _, err := io.ReadFull(res.Body, make([]byte, 9)); err != nil {
						t.Fatal(err)
					}
				}
				if running.Load() != 10 {
					t.Fatalf("%d streams run", running.Load())
				}
				for i, res := range streams {
					leave[i]()
					_ = res.Body.Close()
				}
				w.UntilThat("the upstream is released", func() bool { return running.Load() == 0 })
			}
			round() // what stays after the first is kept alive on purpose
			before := runtime.NumGoroutine()
			for range 3 {
				round()
			}
			w.UntilThat("the goroutines have come back", func() bool { return runtime.NumGoroutine() <= before+5 })
		})
	}
}

// TestTwoWayStream: a stream in both directions at once, with trailers, through
// HTTP/2 to an upstream of HTTP/2: what gRPC needs.
func TestTwoWayStream(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Behind: "reverse_proxy h2c://{up}"})
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		rw.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			_, _ = io.WriteString(rw, "echo "+line)
			_ = http.NewResponseController(rw).Flush()
		}
		rw.Header().Set("Grpc-Status", "0")
		rw.Header().Set("Grpc-Message", r.Proto)
	})
	for _, protocol := range []string{"h2c", "h2", "h3"} {
		for name, s := range map[string]gate.Site{"open": w.Open, "gate": w.Gated} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				c := s.Client(t, protocol)
				r := w.Request(http.MethodPost, "/service/Method", "Content-Type", "application/grpc", "Te", "trailers")
				if name == "gate" {
					r = c.Paying(r)
				}
				body, out := io.Pipe()
				r.Body, r.ContentLength = body, -1
				res, err := c.Start(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				in := bufio.NewReader(res.Body)
				for i := range 5 {
					fmt.Fprintf(out, "message %d\n", i)
					if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("echo message %d\n", i) {
						t.Fatalf("%q %v", line, err)
					}
				}
				_ = out.Close()
				if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 {
					t.Fatalf("%q %v", rest, err)
				}
				if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "HTTP/2.0" {
					t.Errorf("trailers %v", res.Trailer)
				}
				if paid := res.Header.Get(x402.HeaderPaymentResponse) != ""; paid != (name == "gate") {
					t.Errorf("%v", res.Header)
				}
			})
		}
	}
}

// pattern is an endless body that costs nothing to make.
type pattern struct{ size, at int64 }

var patternBlock = []byte(text(32 << 10))

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n := copy(b[:min(int64(len(b)), p.size-p.at)], patternBlock[p.at%int64(len(patternBlock)):])
	p.at += int64(n)
	return n, nil
}

// sum is length and checksum of what arrives.
func sum(r io.Reader) (string, error) {
	h := crc32.NewIEEE()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%d bytes %08x", n, h.Sum32()), err
}

// peak measures by how much the memory that somebody holds grows while f runs. What the
// garbage collector has not come to is no one's.
func peak(f func()) uint64 {
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := held()
	most := before
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				most = max(most, held())
			}
		}
	}()
	f()
	close(done)
	<-stopped
	return most - before
}

// TestLargeBodies: bodies of 256 MB (1 GB with LARGE set) pass in both directions
// unchanged, and are held by nobody on the way.
func TestLargeBodies(t *testing.T) {
	sizes := map[string]int64{"h1": 256 << 20, "h2": 32 << 20, "h3": 48 << 20}
	// Over QUIC either side may keep up to its window of a connection, 15 MB, when the
	// one who reads is slow. It is the window that is held, whatever the size.
	bounds := map[string]uint64{"h1": 10 << 20, "h2": 10 << 20, "h3": 30 << 20}
	if os.Getenv("LARGE") != "" {
		for protocol := range sizes {
			sizes[protocol] = 1 << 30
		}
	}
	w := gate.NewTwins(t, gate.TwinsConfig{})
	received := make(chan string, 1)
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			got, err := sum(r.Body)
			received <- fmt.Sprint(got, err)
			return
		}
		var n int64
		_, _ = fmt.Sscan(r.URL.RawQuery, &n)
		_, _ = io.Copy(rw, &pattern{size: n})
	})
	for protocol, size := range sizes {
		want, _ := sum(&pattern{size: size})
		t.Run(protocol, func(t *testing.T) {
			c := w.Gated.Client(t, protocol)
			down := c.Paying(w.Request(http.MethodGet, fmt.Sprintf("/down?%d", size)))
			up := c.Paying(w.Request(http.MethodPost, "/up"))
			grown := peak(func() {
				res, err := c.Start(down)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, err := sum(res.Body); err != nil || got != want {
					t.Errorf("down: %s %v, want %s", got, err, want)
				}
				up.Body, up.ContentLength = io.NopCloser(&pattern{size: size}), -1
				if res := c.Send(up); res.StatusCode != http.StatusOK {
					t.Error(res)
				}
				if got := <-received; got != want+"<nil>" {
					t.Errorf("up: %s, want %s", got, want)
				}
			})
			t.Logf("%d MB each way, %d MB held at most", size>>20, grown>>20)
			if grown > bounds[protocol] {
				t.Errorf("%d MB are held", grown>>20)
			}
		})
	}
}
