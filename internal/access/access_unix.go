//go:build unix

package access

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// What somebody wants to do with a file.
const (
	enter        = unix.X_OK
	readAndWrite = unix.R_OK | unix.W_OK
)

// mayUse says whether this process may do that with a file.
func mayUse(name string, what uint32) bool { return unix.Access(name, what) == nil }

// ownerOf names the owner of a file.
func ownerOf(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return nameOf(int(stat.Uid))
	}
	return ""
}

// thisUser names who this process runs as.
func thisUser() string { return nameOf(os.Geteuid()) }

// nameOf names a user, as sudo and chown take it.
func nameOf(uid int) string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return "#" + number
}
