package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ethereum/go-ethereum/crypto"
)

// CreateKeyFile makes a new key in a file that only its owner can read and write, as 64
// hexadecimal digits and a line break. The file must not exist: a key that is overwritten
// takes the money of its account with it.
func CreateKeyFile(name string) (*Key, error) {
	private, err := crypto.GenerateKey()
	if err != nil {
		return nil, errors.New("making a key failed")
	}
	digits := hex.AppendEncode(make([]byte, 0, 65), crypto.FromECDSA(private))
	defer clear(digits)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the caller says where
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already, and is left as it is: what its account owns can be reached with it alone", name)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(append(digits, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	return newKey(private), nil
}
