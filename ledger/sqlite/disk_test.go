package sqlite

import (
	"errors"
	"sync"
	"syscall"
)

// badDisk is a disk that fails when it is told to.
type badDisk struct {
	osDisk
	mu sync.Mutex
	// What fails, and how.
	create, write, sync, truncate error
	// half: a write that fails has written a half.
	half bool
	// hangs: a sync waits until it is closed.
	hangs chan struct{}
	syncs int
}

var errFull error = syscall.ENOSPC

// set changes what fails.
func (d *badDisk) set(f func(d *badDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *badDisk) heal() {
	d.set(func(d *badDisk) { d.create, d.write, d.sync, d.truncate = nil, nil, nil, nil })
}

func (d *badDisk) get() *badDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &badDisk{create: d.create, write: d.write, sync: d.sync, truncate: d.truncate, half: d.half, hangs: d.hangs}
}

func (d *badDisk) Create(name string) (file, error) {
	if err := d.get().create; err != nil {
		return nil, err
	}
	f, err := d.osDisk.Create(name)
	return badFile{f, d}, err
}

type badFile struct {
	file
	disk *badDisk
}

func (f badFile) WriteAt(b []byte, at int64) (int, error) {
	d := f.disk.get()
	if d.write == nil {
		return f.file.WriteAt(b, at)
	}
	n := 0
	if d.half {
		n, _ = f.file.WriteAt(b[:len(b)/2], at)
	}
	return n, d.write
}

func (f badFile) Sync() error {
	f.disk.set(func(d *badDisk) { d.syncs++ })
	d := f.disk.get()
	if d.hangs != nil {
		<-d.hangs
	}
	return errors.Join(f.file.Sync(), d.sync)
}

func (f badFile) Truncate(n int64) error {
	if err := f.disk.get().truncate; err != nil {
		return err
	}
	return f.file.Truncate(n)
}
