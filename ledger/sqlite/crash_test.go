package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// crashEnv makes the test binary the process that is killed. killsEnv is how
// often that happens.
const (
	crashEnv = "PAYWALL_SQLITE_CRASH"
	killsEnv = "PAYWALL_SQLITE_KILLS"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		if err := sellUntilKilled(path); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// sellUntilKilled sells as fast as it can, and tells what has happened when it
// has happened.
func sellUntilKilled(path string) error {
	l, err := Open(path, Options{choresEvery: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	say := func(key ledger.Key, s ledger.State) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintln(out, key, s, time.Now().UnixNano())
		_ = out.Flush()
	}
	ctx := context.Background()
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := ledger.Key(fmt.Sprint(os.Getpid(), "-", w, "-", i))
				c, err := l.Claim(ctx, payment(key), testLease)
				for _, to := range way(ledger.States()[rand.IntN(8)]) {
					if err == nil {
						_, err = l.Move(ctx, c, ledger.Change{To: to, Transaction: "tx of " + string(key)})
					}
					if err == nil {
						say(key, to)
					}
				}
				if err != nil {
					panic(err)
				}
			}
		}()
	}
	select {}
}

// rank orders the states of one life.
var rank = map[ledger.State]int{
	"": 0, ledger.Released: 0, ledger.Settling: 2, ledger.Settled: 3, ledger.Delivering: 4, ledger.Delivered: 5,
	ledger.Refused: 5, ledger.Unknown: 5,
}

// TestKill kills a process at work, again and again on the same file. Nothing is
// forgotten of what it said: settling at once, and the rest but for the last
// moment.
func TestKill(t *testing.T) {
	kills := 8
	if n, err := strconv.Atoi(os.Getenv(killsEnv)); err == nil {
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "payments.db")
	total := 0
	used := map[ledger.Key]bool{}
	for range kills {
		said, killed := killOne(t, path, time.Duration(random.IntN(600))*time.Millisecond)
		total += len(said)
		l := open(t, path, Options{})
		for key, s := range said {
			p, err := l.Get(t.Context(), key)
			if err != nil && !(errors.Is(err, ledger.ErrNotFound) && s.state == ledger.Released) {
				t.Fatalf("%s was %s, and is forgotten: %v", key, s.state, err)
			}
			old := killed.Sub(s.at) > 500*time.Millisecond // a busy disk holds up the rest
			if old && rank[p.State] < rank[s.state] {
				t.Errorf("%s was %s, %s before, and is %s", key, s.state, killed.Sub(s.at), p.State)
			}
			if s.state != ledger.Released && s.state != ledger.Refused {
				used[key] = true
			}
			if p.State == ledger.Settling {
				c, err := l.Take(t.Context(), key, ledger.Settling, testLease)
				if err != nil || !c.Payment.Doubt {
					t.Fatalf("%s cannot be taken: %v, %+v", key, err, c.Payment)
				}
				move(t, l, c, ledger.Unknown)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, path, Options{})
	for key := range used {
		p, err := l.Get(t.Context(), key)
		if err != nil || ledger.Claimable(p, time.Now()) && p.State != ledger.Refused {
			t.Fatalf("%s is %q, %v", key, p.State, err)
		}
	}
	t.Logf("%d kills, %d payments", kills, total)
	if total < kills {
		t.Error("nothing was sold")
	}
}

type saying struct {
	state ledger.State
	at    time.Time
}

// killOne runs a process and kills it some time after its first sale. It
// returns the last that was said of each payment.
func killOne(t *testing.T, path string, after time.Duration) (map[ledger.Key]saying, time.Time) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[ledger.Key]saying{}
	var killed time.Time
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // the last line may be half
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "error") {
			t.Fatal(line)
		}
		if killed.IsZero() {
			killed = time.Now().Add(after)
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		var key ledger.Key
		var state ledger.State
		var at int64
		if _, err := fmt.Sscan(line, &key, &state, &at); err != nil {
			t.Fatal(line, err)
		}
		said[key] = saying{state, time.Unix(0, at)}
	}
	_ = cmd.Wait()
	return said, killed
}
