package postgres

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// longLease outlives the test: what is free before was freed.
const longLease = time.Hour

// claimFor is the variable of the process that claims and is killed.
const claimFor = "PAYWALL_TEST_CLAIM"

// TestKilledGateway: the claims of a gateway that was killed are free as soon as one starts in
// its folder, and those of one that lives are not, whatever becomes of its sessions.
func TestKilledGateway(t *testing.T) {
	if dsn, dir, ok := strings.Cut(os.Getenv(claimFor), "|"); ok {
		claimAndWait(t, dsn, dir)
		return
	}
	for name, tt := range map[string]struct {
		between func(t *testing.T, s *server, g *process, dir string) string // returns the folder of the next one
		free    bool
	}{
		"killed": {func(_ *testing.T, _ *server, g *process, dir string) string {
			g.kill()
			return dir
		}, true},
		"killed, and another folder": {func(t *testing.T, _ *server, g *process, _ string) string {
			g.kill()
			return t.TempDir()
		}, false},
		"alive": {func(_ *testing.T, _ *server, _ *process, dir string) string { return dir }, false},
		"alive, stopped, and its sessions ended": {func(t *testing.T, s *server, g *process, dir string) string {
			if err := g.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			s.exec(t, "public", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
			return dir
		}, false},
		"alive, and its folder copied": {func(t *testing.T, _ *server, _ *process, dir string) string {
			to := t.TempDir()
			copyFolder(t, dir, to)
			return to
		}, false},
		"alive, and its file put in place again": {func(t *testing.T, _ *server, _ *process, dir string) string {
			to := t.TempDir()
			copyFolder(t, dir, to)
			copyFolder(t, to, dir) // another file of the same name
			return dir
		}, false},
		"killed, on another boot": {func(t *testing.T, _ *server, g *process, dir string) string {
			g.kill()
			for _, name := range files(t, dir) {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				b[len("boot ")] ^= 1
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}, false},
		"killed before its file was written": {func(t *testing.T, _ *server, g *process, dir string) string {
			g.kill()
			for _, name := range files(t, dir) {
				if err := os.Truncate(name, 10); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := theServer(t)
			schema, dir := s.newSchema(t), t.TempDir()
			g := startClaiming(t, s.dsn(schema), dir)
			next := s.gateway(t, schema, Options{Presence: tt.between(t, s, g, dir)})
			for i, to := range []ledger.State{ledger.Settling, ledger.Delivering} {
				p := sample(uint64(i))
				_, err := next.Take(t.Context(), p.Key, to, longLease)
				wantFree(t, fmt.Sprint("Take to ", to), err, tt.free)
			}
			_, err := next.Claim(t.Context(), sample(2), longLease)
			wantFree(t, "Claim", err, tt.free)
			if tt.free {
				if left := files(t, dir); len(left) != 1 {
					t.Errorf("left in the folder: %q", left)
				}
			}
		})
	}
}

// TestKilledNeighbour: a gateway that goes on finds out about one beside it that was killed.
func TestKilledNeighbour(t *testing.T) {
	s := theServer(t)
	schema, dir := s.newSchema(t), t.TempDir()
	l := s.gateway(t, schema, Options{Presence: dir})
	if err := sell(l, sample(100)); err != nil {
		t.Fatal(err)
	}
	g := startClaiming(t, s.dsn(schema), dir)
	_, err := l.Claim(t.Context(), sample(2), longLease)
	wantFree(t, "Claim", err, false)
	g.kill()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = l.Claim(t.Context(), sample(2), longLease); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestClosedLedgerOfLivingProcess: a ledger that is closed while its claims are out does not
// make them free; one that has none leaves nothing behind.
func TestClosedLedgerOfLivingProcess(t *testing.T) {
	s := theServer(t)
	schema, dir := s.newSchema(t), t.TempDir()
	l := s.gateway(t, schema, Options{Presence: dir})
	if _, err := l.Claim(t.Context(), sample(2), longLease); err != nil {
		t.Fatal(err)
	}
	l.Close()
	next := s.gateway(t, schema, Options{Presence: dir})
	_, err := next.Claim(t.Context(), sample(2), longLease)
	wantFree(t, "Claim", err, false)
	next.Close()
	if left := files(t, dir); len(left) != 1 { // that of the first
		t.Errorf("left in the folder: %q", left)
	}
}

func wantFree(t *testing.T, what string, err error, free bool) {
	t.Helper()
	if _, taken := errors.AsType[*ledger.TakenError](err); free && err != nil || !free && !taken {
		t.Errorf("%s: %v, want it free: %t", what, err, free)
	}
}

// process is one that has claims.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
}

// kill kills it as nothing else can.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// startClaiming starts a process that holds three payments.
func startClaiming(t *testing.T, dsn, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledGateway$", "-test.v") //nolint:gosec // this program
	cmd.Env = append(os.Environ(), claimFor+"="+dsn+" application_name=victim|"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd}
	t.Cleanup(p.kill)
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said += lines.Text() + "\n"; strings.Contains(said, "CLAIMED") {
			return p
		}
	}
	t.Fatalf("it has not claimed: %s", said)
	return nil
}

// claimAndWait is that process.
func claimAndWait(t *testing.T, dsn, dir string) {
	l, err := New(Options{DSN: dsn, Presence: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i, way := range [][]ledger.State{{ledger.Settling}, {ledger.Settling, ledger.Settled, ledger.Delivering}, nil} {
		c, err := l.Claim(t.Context(), sample(uint64(i)), longLease) //nolint:gosec // a few
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range way {
			if _, err := l.Move(t.Context(), c, ledger.Change{To: to}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fmt.Println("CLAIMED")
	time.Sleep(5 * time.Minute) // until it is killed
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(all) == 0 {
		t.Fatal("no files", err)
	}
	return all
}

// copyFolder copies files to new ones of the same names.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range files(t, from) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(to, filepath.Base(name))
		_ = os.Remove(name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
