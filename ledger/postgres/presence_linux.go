package postgres

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// heldFile is a file that this process has a lock on. It is a bare descriptor: os.File would
// be closed, and the lock be gone, when the collector finds that nobody uses it.
type heldFile struct{ fd int }

func (f *heldFile) letGo() { _ = unix.Close(f.fd) }

// localFilesystems are those where this kernel alone decides about locks: ext2 to ext4, XFS,
// Btrfs, tmpfs, overlay, ZFS, F2FS, bcachefs.
var localFilesystems = []int64{0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x794c7630, 0x2fc12fc1, 0xf2f52010, 0xca451a4e}

// holdFile makes a file, and locks it for as long as this process lives. What it says is
// written under the lock: a file that says all of it was locked.
func holdFile(name string) (*heldFile, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	f := &heldFile{fd}
	err = unix.Flock(fd, unix.LOCK_EX) // somebody may look at it just now
	var says string
	if err == nil {
		says, err = identify(fd)
	}
	if err == nil {
		_, err = unix.Write(fd, []byte(says))
	}
	if err != nil {
		_ = os.Remove(name)
		f.letGo()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return f, nil
}

// takeDead returns the file of a process that is dead, locked, or nil: it lives, or it cannot
// be told.
func takeDead(name string) (*heldFile, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	f := &heldFile{fd}
	if dead, err := isDead(name, fd); err != nil || !dead {
		f.letGo()
		return nil, err
	}
	return f, nil
}

func isDead(name string, fd int) (bool, error) {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	want, err := identify(fd)
	if err != nil {
		return false, err
	}
	b := make([]byte, len(want)+1)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return false, err
	}
	if string(b[:n]) == want {
		return true, nil
	}
	// A copy, of another boot, or one whose maker died before it was written: who waits long
	// enough knows that no lease is left.
	if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > strangeFor {
		_ = os.Remove(name)
	}
	return false, nil
}

// identify says which file this is, of all in the world: of the kernel that is running.
func identify(fd int) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", err
	}
	if !slices.Contains(localFilesystems, int64(fs.Type)) { //nolint:unconvert // its type differs between machines
		return "", errors.New("its filesystem may be shared with other machines")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if len(strings.TrimSpace(string(boot))) != 36 {
		return "", errors.New("the kernel has no boot ID")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", err
	}
	return fmt.Sprintf("boot %s device %d inode %d\n", strings.TrimSpace(string(boot)), stat.Dev, stat.Ino), nil
}
