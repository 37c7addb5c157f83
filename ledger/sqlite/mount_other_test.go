//go:build !linux

package sqlite

import "errors"

func mountSmall(string, int) error { return errors.ErrUnsupported }

func unmount(string) {}
