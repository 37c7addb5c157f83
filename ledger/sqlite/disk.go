package sqlite

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// disk is what the journal needs of a file system. Tests put one in its place
// that fails when it is told to.
type disk interface {
	// Create makes a new file.
	Create(name string) (file, error)
	ReadFile(name string) ([]byte, error)
	// ReadHead returns the first n bytes of a file, or all if it has less.
	ReadHead(name string, n int64) ([]byte, error)
	// Glob returns the names that begin with prefix, sorted.
	Glob(prefix string) ([]string, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes what happened to the names in a directory permanent.
	SyncDir(name string) error
}

// file is an open file of the journal.
type file interface {
	io.WriterAt
	// Sync returns when the contents are on disk, safe from a power failure.
	Sync() error
	Truncate(size int64) error
	Close() error
}

// osDisk is the disk of the operating system.
type osDisk struct{}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return syncData(f.File) }

// The files have signatures of payers in them, and are nobody else's business.
const fileMode = 0o600

func (osDisk) Create(name string) (file, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // the configured file
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) } //nolint:gosec // the configured file

func (osDisk) ReadHead(name string, n int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the configured file
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	return b, errors.Join(err, f.Close())
}

func (osDisk) Glob(prefix string) ([]string, error) {
	dir, begin := filepath.Split(prefix)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), begin) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) Remove(name string) error { return os.Remove(name) }

func (osDisk) SyncDir(name string) error { return syncDir(name) }
