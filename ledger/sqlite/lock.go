package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// takeLock keeps every other writer away from the ledger at path, until the file that it
// returns is closed: two gates that write one would each sell what the other has sold. The
// lock stays beside the database, so that a copy of the database is not locked, and when
// it is let go, for who removed it could remove the lock of the next one.
func takeLock(path string) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // the configured file
	if err != nil {
		return nil, err
	}
	got, err := lockFile(f)
	if err == nil && !got {
		err = fmt.Errorf("the ledger %s is in use by %s, and one process writes it at a time: stop that one, or use another file, or `ledger postgres` for several gateways", path, holder(name))
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, lockLine, os.Getpid()), 0) // the mark behind it stays
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holder names the process that has the lock, if it says so.
func holder(name string) string {
	b, err := os.ReadFile(name) //nolint:gosec // the lock of the configured file
	pid, _, _ := strings.Cut(string(b), "\n")
	pid = strings.TrimSpace(pid)
	if err != nil || pid == "" {
		return "another process"
	}
	return "process " + pid
}
