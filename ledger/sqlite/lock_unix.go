//go:build unix

package sqlite

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the lock on an open file, for as long as it is open. It reports
// false when another has it. The lock ends with the process, however it ends.
func lockFile(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor fits
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func syncDir(name string) error {
	d, err := os.Open(name) //nolint:gosec // the directory of the configured file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
