package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// lock keeps every other writer away from a ledger: two gates that write one
// would each sell what the other has sold.
type lock struct{ file *os.File }

// takeLock takes the lock of the ledger at path. It stays beside the database,
// so that a copy of the database is not locked.
func takeLock(path string) (*lock, error) {
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
		err = errors.Join(f.Truncate(0), writeAll(f, fmt.Sprintln(os.Getpid())))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &lock{f}, nil
}

func writeAll(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder names the process that has the lock, if it says so.
func holder(name string) string {
	b, err := os.ReadFile(name) //nolint:gosec // the lock of the configured file
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return "another process"
	}
	return "process " + pid
}

// release lets others in. The file stays: who removed it could remove the lock
// of the next one.
func (l *lock) release() error { return l.file.Close() }
