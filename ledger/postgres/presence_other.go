//go:build !linux

package postgres

import "errors"

// heldFile is for systems where we know how to tell one boot of one machine from another.
type heldFile struct{}

func (*heldFile) letGo() {}

var errNoPresence = errors.New("this system has no boot ID that we know of")

func holdFile(string) (*heldFile, error) { return nil, errNoPresence }

func takeDead(string) (*heldFile, error) { return nil, errNoPresence }
