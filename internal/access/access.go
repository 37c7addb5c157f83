// Package access says which file stands in the way of who may not open a SQLite database, whose
// it is, and what to do.
package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const unwritable = "may not be read and written"

// Explain says of an error that comes of what this user may not do with a database which file
// it is about, whose that is, and what to do. It says nothing of other errors. Nothing is opened for it:
// to close a file would let go of SQLite's locks on it.
func Explain(path string, err error) error {
	if err == nil || !errors.Is(err, fs.ErrPermission) && !cannotOpen(err) {
		return err
	}
	for at := filepath.Dir(path); ; at = filepath.Dir(at) {
		if !mayUse(at, enter) && exists(at) {
			return fmt.Errorf("%s: %w", notOurs(path, at, "may not be entered"), err)
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	const beside = "may not be written, where SQLite keeps files beside the database"
	for _, at := range []struct{ name, what string }{
		{path, unwritable}, {path + "-wal", unwritable}, {path + "-shm", unwritable}, {filepath.Dir(path), beside}, {path + ".lock", unwritable},
	} {
		if exists(at.name) && !mayUse(at.name, readAndWrite) {
			return fmt.Errorf("%s: %w", notOurs(path, at.name, at.what), err)
		}
	}
	return fmt.Errorf("SQLite can open neither %s nor what belongs beside it (-wal, -shm); is it a file, on a disk that is mounted for writing and has room? %w", path, err)
}

// cannotOpen says whether SQLite has found a file that it cannot open or write.
func cannotOpen(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_PERM:
		return true
	}
	return false
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// notOurs says whose a file is that stands in the way to the database.
func notOurs(path, name, what string) string {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Sprintf("%s %s", name, what)
	}
	owner, me := ownerOf(info), thisUser()
	text := fmt.Sprintf("%s %s by this user", name, what)
	if me != "" {
		text = fmt.Sprintf("%s %s by %s", name, what, me)
	}
	if owner == "" || owner == me {
		return text + fmt.Sprintf(" (mode %s): change its mode, or how it is mounted", info.Mode())
	}
	return text + fmt.Sprintf(": it belongs to %s (mode %s); do this as that user (sudo -u %s …), or, if the gateway is to run as another one from now on, stop it and hand all of %s* over with chown",
		owner, info.Mode(), owner, path)
}
