// Package soak kills things, and counts the money afterwards. See README.md.
package soak

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The tests have three forms: short, which all tests of the project include, long
// (some minutes), and full (more of everything; it is long too).
var (
	full = os.Getenv("SOAK") == "full"
	long = full || os.Getenv("SOAK") == "long"
)

// amount is what everything costs, in atomic units: $0.01.
const amount = 10_000

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait more than they work.
	_ = flag.Set("test.parallel", "6")
	code := m.Run()
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir)
	}
	os.Exit(code)
}

// binary is Caddy with the paywall as users build it, once per run, or what
// SOAK_CADDY names.
var binary struct {
	once      sync.Once
	dir, path string
	err       error
}

// caddy returns the path of the binary.
func caddy(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.path = os.Getenv("SOAK_CADDY"); binary.path != "" {
			return
		}
		if binary.dir, binary.err = os.MkdirTemp("", "soak"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "caddy")
		args := []string{"build", "-o", binary.path, "../../cmd/caddy"}
		if racing { // what was compiled for the tests is used again
			args = slices.Insert(args, 1, "-race")
		}
		out, err := exec.Command("go", args...).CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// dice are random numbers that many goroutines may draw. What they draw depends
// on the seed, in which order on the machine: a seed makes a failure likely to
// come back, no more.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

// newDice prints its seed. SOAK_SEED sets it.
func newDice(t testing.TB) *dice {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number will do
	if s := os.Getenv("SOAK_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("SOAK_SEED=%d", seed)
	return &dice{r: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // to be repeated
}

// n draws from [0,n).
func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// between draws a time.
func (d *dice) between(from, to time.Duration) time.Duration {
	return from + time.Duration(d.n(int(to-from)))
}
