package sqlite

import (
	"fmt"
	"syscall"
)

// mountSmall mounts a file system of some size. It goes with the last process
// that uses it.
func mountSmall(dir string, size int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }
