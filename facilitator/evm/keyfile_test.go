package evm

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestKeyFilesOfOthersAreToldOf: a key that others can change is refused, one that
// others can read is warned of, with what to do about it.
func TestKeyFilesOfOthersAreToldOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("its permissions are not in the mode")
	}
	for name, tt := range map[string]struct {
		file, dir fs.FileMode
		link      fs.FileMode // the mode of the directory of a link to the file; 0: none
		warn, err string
	}{
		"its owner's alone":                    {file: 0o600, dir: 0o755},
		"read-only":                            {file: 0o400, dir: 0o500},
		"everybody reads":                      {file: 0o644, dir: 0o755, warn: "can be read by others"},
		"a secret of Kubernetes":               {file: 0o644, dir: 0o755, link: 0o777 | fs.ModeSticky, warn: "defaultMode 0400"},
		"a secret of Docker":                   {file: 0o444, dir: 0o755, warn: "chmod 600"},
		"a group reads":                        {file: 0o640, dir: 0o755, warn: "can be read by others"},
		"everybody writes":                     {file: 0o606, dir: 0o755, err: "can be changed by others"},
		"a group writes":                       {file: 0o620, dir: 0o755, err: "chmod 600"},
		"everybody does all":                   {file: 0o666, dir: 0o755, err: "can be changed by others"},
		"linked, and everybody writes":         {file: 0o602, dir: 0o755, link: 0o755, err: "can be changed by others"},
		"everybody can exchange it":            {file: 0o600, dir: 0o777, err: "chmod o-w"},
		"everybody can exchange the link":      {file: 0o600, dir: 0o755, link: 0o757, err: "chmod o-w"},
		"everybody can exchange what is there": {file: 0o600, dir: 0o757, link: 0o755, err: "chmod o-w"},
		"a group can exchange it":              {file: 0o600, dir: 0o775, warn: "chmod g-w"},
		"in a directory like /tmp":             {file: 0o600, dir: 0o777 | fs.ModeSticky},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "key")
			if err := os.WriteFile(path, []byte(signerKey), 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.link != 0 {
				links := t.TempDir()
				link := filepath.Join(links, "link")
				if err := os.Symlink(path, link); err != nil {
					t.Fatal(err)
				}
				path = link
				chmod(t, links, tt.link)
			}
			chmod(t, path, tt.file)
			chmod(t, dir, tt.dir)
			core, logs := observer.New(zapcore.DebugLevel)
			f := &Facilitator{Networks: map[string]*Network{"base": {RPC: []string{"https://a.example"}, Signers: []string{"{file." + path + "}"}}}, logger: zap.New(core)}
			err := f.provision()
			defer func() { _ = f.Cleanup() }()
			text := logged(logs)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			case err == nil && (tt.warn == "") != (logs.Len() == 0), !strings.Contains(text, tt.warn):
				t.Errorf("log %s, want %q", text, tt.warn)
			case err == nil && tt.warn != "" && (!strings.Contains(text, path) || logs.All()[0].Level != zapcore.WarnLevel):
				t.Errorf("log %s", text)
			}
			if err != nil {
				text += err.Error()
			}
			if strings.Contains(text, signerKey) {
				t.Error("the key shows")
			}
		})
	}
	t.Run("no file of a disk", func(t *testing.T) {
		if warnings, err := checkKeyFile("{file./dev/null}", false); warnings != nil || err != nil {
			t.Errorf("%v, %v", warnings, err)
		}
	})
	t.Run("the environment", func(t *testing.T) {
		if warnings, err := checkKeyFile("{env.KEY}", false); warnings != nil || err != nil {
			t.Errorf("%v, %v", warnings, err)
		}
	})
}

// chmod sets a mode whatever the umask says, until the test is over.
func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
}
