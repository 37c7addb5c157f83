//go:build unix

package sqlite

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// openAs is the variable of the process that opens a ledger as somebody else.
const openAs = "PAYWALL_TEST_OPEN"

// TestOthersFiles: who may not open a ledger is told which file it is about, whose that is,
// and what to do.
func TestOthersFiles(t *testing.T) {
	if how, path, ok := strings.Cut(os.Getenv(openAs), ":"); ok {
		var err error
		if how == "read" {
			_, err = OpenReader(path)
		} else {
			_, err = Open(path, Options{})
		}
		if err == nil {
			t.Log("OPENED")
			return
		}
		t.Logf("SAYS %v", err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("to be another user takes root")
	}
	dir := t.TempDir()
	for at := dir; at != os.TempDir(); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil { //nolint:gosec // another user has to come here
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "data", "payments.db")
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	bring(t, l, "k", ledger.Delivered)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	copyProgram(t, program)

	for name, tt := range map[string]struct {
		folder, file os.FileMode
		how          string
		says         []string
	}{
		"a closed folder, to read":   {0o700, 0o600, "read", []string{filepath.Dir(path) + " may not be entered", "belongs to root", "sudo -u root"}},
		"a closed folder, to write":  {0o700, 0o600, "write", []string{filepath.Dir(path) + " may not be entered", "belongs to root", "chown"}},
		"a closed file":              {0o755, 0o600, "read", []string{path + " may not be read", "belongs to root", "sudo -u root"}},
		"a file that is only read":   {0o755, 0o644, "read", []string{path + " may not be read and written", "belongs to root"}}, // SQLite: (14)
		"a folder that is only read": {0o755, 0o666, "read", []string{filepath.Dir(path) + " may not be written", "belongs to root"}},
		"another's lock":             {0o777, 0o666, "write", []string{path + ".lock may not be", "belongs to root"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.Chmod(filepath.Dir(path), tt.folder); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.file); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program, "-test.run", "^TestOthersFiles$", "-test.v") //nolint:gosec // this program
			cmd.Env = append(os.Environ(), openAs+"="+tt.how+":"+path)
			cmd.Dir = dir
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range append(tt.says, path) {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in %s", want, out)
				}
			}
		})
	}
}

// copyProgram copies this program to where another user can start it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755) //nolint:gosec // a program
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
