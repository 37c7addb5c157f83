package commands

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"

	"github.com/caddy-paywall/caddy-paywall/client"
)

// maxKeyFile bounds what is read as a key.
const maxKeyFile = 1 << 10

// key finds the key that the flags name. Nil without an error means that there
// is none: many requests need none.
func (p *pay) key(envIsChosen bool) (*client.Key, error) {
	chosen := 0
	for _, is := range []bool{envIsChosen, p.keyFile != "", p.devKey >= 0} {
		if is {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return nil, errors.New("give only one of --key-env, --key-file and --dev-key")
	case p.devKey > math.MaxInt32 || p.devKey < -1:
		return nil, errors.New("--dev-key: there is no such account")
	case p.devKey >= 0:
		return client.DevKey(uint32(p.devKey)) //nolint:gosec // checked above
	case p.keyFile != "":
		return p.keyFromFile()
	}
	text := os.Getenv(p.keyEnv)
	if text == "" {
		if envIsChosen {
			return nil, fmt.Errorf("--key-env: the variable %s is not set", p.keyEnv)
		}
		return nil, nil
	}
	k, err := client.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("the variable %s: %w", p.keyEnv, err)
	}
	return k, nil
}

func (p *pay) keyFromFile() (*client.Key, error) {
	f, err := os.Open(p.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	k, err := client.ParseKey(string(b))
	clear(b)
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	// Secrets that a container is given are readable by all, so that is no
	// reason to refuse.
	if info, err := f.Stat(); err == nil && runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		p.report.line("warning: other users can read the key in %s; chmod 600 it", p.keyFile)
	}
	return k, nil
}
