package promises

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Payers on Solana have the rights and the bounds of all others, whether their messages
// or a facilitator says who they are.

const (
	solanaFeePayer = "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"
	solanaPayer    = "7v91N7iZ9mNicL8WfG6cgSCKyRXydQjLh6UYBWwm6y1Q"
)

// solanaWays are how a payer is known.
var solanaWays = []string{"by his message", "by the facilitator"}

// What was paid in an earlier world is remembered in the next one.
var (
	solanaWorlds    atomic.Uint64
	solanaTransfers atomic.Uint64
)

// solanaWorld is a world that is paid on Solana. The n-th payment of its payer is what
// pay makes.
func solanaWorld(t *testing.T, way, options string, more ...string) (w *gate.World, pay func(method, path string, n int) string) {
	t.Helper()
	w = gate.Prepare(t)
	w.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"` + solanaDevnet + `","extra":{"feePayer":"` + solanaFeePayer + `"}}],"extensions":[],"signers":{}}`)
	said := ""
	transaction := signedOnSolana
	if way == "by the facilitator" {
		said, transaction = `,"payer":"`+solanaPayer+`"`, oddOnSolana
	}
	if way == "by nobody" {
		// It pays the fee for all of them, and so says nothing of who pays.
		said, transaction = `,"payer":"`+solanaFeePayer+`"`, oddOnSolana
	}
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":true`+said+`}`))
	world := solanaWorlds.Add(1)
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		w.Facilitator.Moves(fmt.Sprint(sha256.Sum256(body)), "x")
		const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZ"
		i := solanaTransfers.Add(1)
		fmt.Fprintf(rw, `{"success":true,"transaction":"%s","network":"%s"%s}`,
			solanaTx[:len(solanaTx)-2]+string(digits[i/30%30])+string(digits[i%30]), solanaDevnet, said)
	})
	w.Load(w.Caddyfile("accept solana-devnet usdc "+solanaPayTo+"\n"+options, more...))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	return w, func(method, path string, n int) string {
		return solanaPayment(t, w.Challenge(method, path), transaction(world<<32|uint64(n)))
	}
}

// signedOnSolana is a transaction of one payer beside a fee payer.
func signedOnSolana(n uint64) []byte {
	owner := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	message := append([]byte{0x80, 2, 0, 1, 3}, make([]byte, 32)...)
	message = append(message, owner.Public().(ed25519.PublicKey)...) //nolint:forcetypeassert // it is
	message = append(message, make([]byte, 32)...)
	message = append(binary.BigEndian.AppendUint64(message, n), make([]byte, 24)...) // block hash
	message = append(message, 1, 2, 0, 0, 0)
	tx := append([]byte{2}, make([]byte, 64)...)
	return append(append(tx, ed25519.Sign(owner, message)...), message...)
}

// oddOnSolana is a transaction that one account signs: its message does not say who pays.
func oddOnSolana(n uint64) []byte {
	message := append([]byte{0x80, 1, 0, 0, 2}, make([]byte, 64)...)
	message = append(binary.BigEndian.AppendUint64(message, n), make([]byte, 24)...)
	message = append(message, 1, 1, 0, 0, 0)
	return append(append([]byte{1}, make([]byte, 64)...), message...)
}

// Leaving before the answer, again and again, is not for nothing.
func TestHangingUpIsNotForNothingOnSolana(t *testing.T) {
	for _, way := range append(solanaWays, "by nobody") {
		for _, fresh := range []bool{false, true} {
			t.Run(fmt.Sprint(way, ", fresh ", fresh), func(t *testing.T) {
				w, pay := solanaWorld(t, way, "price /paid/* $0.01")
				started := make(chan struct{}, 100)
				w.Upstream.On(func(_ http.ResponseWriter, r *http.Request) {
					started <- struct{}{}
					<-r.Context().Done()
				})
				payment := pay(http.MethodGet, "/paid/x", 0)
				for i := range 20 {
					if fresh {
						payment = pay(http.MethodGet, "/paid/x", i)
					}
					conn, _ := w.Begins(http.MethodGet, "/paid/x", payment, "")
					select {
					case <-started:
					case <-time.After(100 * time.Millisecond):
					}
					conn.Close()
					time.Sleep(10 * time.Millisecond)
				}
				// Whom nobody can name pays before each run.
				if runs := int(w.Upstream.Hits.Load()); w.Facilitator.Transfers() == 0 || runs > max(10, w.Facilitator.Transfers()) {
					t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
				}
			})
		}
	}
}

// Nor are actions, pages that are not there, and settlements that are refused.
func TestNothingIsForEverForNothingOnSolana(t *testing.T) {
	for _, way := range append(solanaWays, "by nobody") {
		t.Run(way, func(t *testing.T) {
			w, pay := solanaWorld(t, way, "price /paid/* $0.01")
			w.Upstream.On(gate.Says(404, "no such page"))
			payment := pay(http.MethodGet, "/paid/x", 0)
			for range 60 {
				_ = w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) })
			}
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}

			w, pay = solanaWorld(t, way, "price /paid/* $0.01")
			w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"`+solanaDevnet+`"}`))
			for i := range 10 {
				w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay(http.MethodGet, "/paid/x", i)), 402, "insufficient_funds")
			}
			if w.Upstream.Hits.Load() > 1 {
				t.Errorf("%d runs for refused settlements", w.Upstream.Hits.Load())
			}

			w, pay = solanaWorld(t, way, "price POST /paid/* $0.01 {\n settle on_success\n}\nprice GET /paid/* $0.01", "in_process")
			var acted atomic.Int64
			gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
				_, _ = io.ReadAll(r.Body)
				acted.Add(1)
				time.Sleep(20 * time.Millisecond)
				_, err := io.WriteString(rw, "done")
				return err
			})
			payment = pay(http.MethodPost, "/paid/x", 0)
			for i := range 20 {
				before := acted.Load()
				conn, _ := w.Begins(http.MethodPost, "/paid/x", payment, fmt.Sprint("order ", i))
				for end := time.Now().Add(100 * time.Millisecond); acted.Load() == before && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				conn.Close()
				time.Sleep(35 * time.Millisecond)
			}
			if acted.Load() > 10 || w.Facilitator.Transfers() == 0 {
				t.Errorf("%d actions, %d transfers", acted.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Who signs anew gets what is owed to him, and nothing is done or charged twice.
func TestFreshSignatureRedeemsOnSolana(t *testing.T) {
	for _, way := range solanaWays {
		t.Run(way, func(t *testing.T) {
			w, pay := solanaWorld(t, way, "price /paid/* $0.01")
			w.Upstream.On(gate.BreaksOff)
			for i := range 3 {
				_ = w.Get("/paid/x", "PAYMENT-SIGNATURE", pay(http.MethodGet, "/paid/x", i))
			}
			w.Upstream.On(nil)
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay(http.MethodGet, "/paid/x", 3)), 200, "")
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("charged %d times", w.Facilitator.Transfers())
			}

			w, pay = solanaWorld(t, way, "price /paid/* $0.01")
			w.Upstream.On(w.Upstream.Slowly)
			w.Leaves(http.MethodPost, "/paid/x", pay(http.MethodPost, "/paid/x", 0), "one order")
			res := w.Again(func() gate.Answer {
				return w.SendBody(t.Context(), http.MethodPost, "/paid/x", pay(http.MethodPost, "/paid/x", 1), "one order")
			})
			if res.StatusCode != 200 || !strings.Contains(res.Text, "done one order 19") || w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d %.60q, done %d times, charged %d times", res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Of the same order at once one is sold, and one of which nobody knows whether it was
// paid for is not paid for again.
func TestSameOrderIsSoldOnceOnSolana(t *testing.T) {
	for _, way := range solanaWays {
		t.Run(way, func(t *testing.T) {
			w, pay := solanaWorld(t, way, "price /paid/* $0.01")
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				time.Sleep(300 * time.Millisecond)
				_, _ = io.WriteString(rw, "done")
			})
			var all sync.WaitGroup
			for i := range 4 {
				payment := pay(http.MethodPost, "/paid/x", i)
				all.Go(func() { w.SendBody(t.Context(), http.MethodPost, "/paid/x", payment, "one order") })
			}
			all.Wait()
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("done %d times, charged %d times", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}

			for _, settle := range []string{"first", "on_success"} {
				w, pay := solanaWorld(t, way, "price /paid/* $0.01 {\n settle "+settle+"\n}")
				var mu sync.Mutex
				asked := map[string]bool{}
				w.Facilitator.OnSettle(func(_ http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					asked[string(gate.Body(r))] = true
					panic(http.ErrAbortHandler)
				})
				for i := range 3 {
					w.Expect(w.SendBody(t.Context(), http.MethodPost, "/paid/x", pay(http.MethodPost, "/paid/x", i), "one order"), 503, "settlement_pending")
				}
				mu.Lock()
				if len(asked) != 1 || w.Upstream.Hits.Load() > 1 {
					t.Errorf("%s: %d payments, done %d times", settle, len(asked), w.Upstream.Hits.Load())
				}
				mu.Unlock()
			}
		})
	}
}
