//go:build servers

package servers

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// program finds a program where Debian puts it. The names may have a version in
// them.
func program(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s is missing: run `make servers`, which installs it", pattern)
	}
	return found[len(found)-1]
}

// start runs a server until the test ends, in a process group of its own, so that
// its workers end with it. It waits until the address answers.
func start(t *testing.T, address, dir string, command ...string) {
	t.Helper()
	startAs(t, nil, address, dir, command...)
}

func startAs(t *testing.T, as *syscall.Credential, address, dir string, command ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(command[0])+".out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "PHP_CLI_SERVER_WORKERS=4", "PYTHONDONTWRITEBYTECODE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: as}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = log.Close()
	})
	for range 200 {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("%v ended:\n%s", command, said)
		case <-time.After(50 * time.Millisecond):
		}
	}
	said, _ := os.ReadFile(log.Name())
	t.Fatalf("%v does not answer:\n%s", command, said)
}

// nobody is who a server runs as that refuses to be root, or nil if we are not
// root ourselves.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// root tells php-fpm and nginx to be root where we are, which they are told in
// other words when we are not.
func root() bool { return os.Getuid() == 0 }
