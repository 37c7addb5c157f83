package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Backup writes a copy of the ledger to a new file, as it is at one moment, while the
// ledger may be in use. When it returns, the copy is on disk.
func (r *Reader) Backup(ctx context.Context, to string) (err error) {
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	if err := missing(to); err != nil {
		return err
	}
	// A half-written copy must not be taken for a whole one.
	part := to + ".part"
	if err := r.copyTo(ctx, part); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: another backup is under way, or was broken off; then remove that file", err)
	} else if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := missing(to); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// copyTo writes a copy to a new file, and syncs it.
func (r *Reader) copyTo(ctx context.Context, name string) error {
	// SQLite writes into an empty file, which has the right mode.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // the caller's file
	if err != nil {
		return err
	}
	if _, err = r.file.read.ExecContext(ctx, "VACUUM INTO ?", name); err != nil {
		err = fmt.Errorf("writing the backup: %w", damaged(err))
	} else {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// missing says whether a name is free.
func missing(name string) error {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return err
}
