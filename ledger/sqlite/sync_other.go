//go:build !linux

package sqlite

import "os"

// syncData is whatever the system has that survives a power failure: os.File
// asks for F_FULLFSYNC on macOS.
func syncData(f *os.File) error { return f.Sync() }
