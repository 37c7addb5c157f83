package evm

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// The bits of a file's mode by which others than its owner get at it.
const (
	othersRead, othersWrite          fs.FileMode = 0o044, 0o022
	groupWrites, everybodyElseWrites fs.FileMode = 0o020, 0o002
)

// checkKeyFiles looks who else can get at the files of a signer. That others can read
// an encrypted key is what it is encrypted for; its password is another matter.
func checkKeyFiles(raw string, warn func(string)) error {
	placeholders, err := placeholdersOf(raw)
	for i, p := range placeholders {
		var warnings []string
		if warnings, err = checkKeyFile(p, i < len(placeholders)-1); err != nil {
			break
		}
		for _, w := range warnings {
			warn(w)
		}
	}
	return err
}

// checkKeyFile looks who else can get at the file that a placeholder names. An error
// is for a file that others can change: whoever puts a key of his own there has
// payments settled by an account that he can empty. A warning is for one that others
// can read. That is no error because containers are given their secrets so by default,
// where nobody else is there to read them.
//
// What a symbolic link leads to is what counts, and the directories of both, since
// whoever may write to them can exchange the file. Those further up are not looked at.
func checkKeyFile(placeholder string, encrypted bool) (warnings []string, err error) {
	path, isFile := fileOf(placeholder)
	if !isFile || runtime.GOOS == "windows" { // which keeps permissions elsewhere
		return nil, nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s was read, and now it is not there: %w", placeholder, err)
	case !info.Mode().IsRegular(): // as a pipe from whoever has started Caddy
		return nil, nil
	case info.Mode()&othersWrite != 0:
		return nil, fmt.Errorf("%s can be changed by others than its owner (%s): make the user that Caddy runs as its owner, and then `chmod 600 %s`", path, info.Mode(), path)
	case info.Mode()&othersRead != 0 && !encrypted:
		warnings = append(warnings, fmt.Sprintf("%s can be read by others than its owner (%s): make the user that Caddy runs as its owner, and then `chmod 600 %s` (in Kubernetes: defaultMode 0400)", path, info.Mode(), path))
	}
	for _, dir := range directoriesOf(path) {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the directory of %s: %w", path, err)
		case info.Mode()&fs.ModeSticky != 0: // only its owner can exchange a file there
		case info.Mode()&everybodyElseWrites != 0:
			return nil, fmt.Errorf("everybody can exchange %s, because its directory %s can be written to by all (%s): `chmod o-w %s`", path, dir, info.Mode(), dir)
		case info.Mode()&groupWrites != 0:
			warnings = append(warnings, fmt.Sprintf("a group can exchange %s, because it can write to its directory %s (%s): `chmod g-w %s`", path, dir, info.Mode(), dir))
		}
	}
	return warnings, nil
}

// fileOf is the path in {file.PATH}.
func fileOf(placeholder string) (path string, ok bool) {
	path, ok = strings.CutPrefix(placeholder, "{file.")
	return strings.TrimSuffix(path, "}"), ok
}

// directoriesOf lists the directory of a file, and of what it links to.
func directoriesOf(path string) []string {
	list := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != list[0] {
		list = append(list, filepath.Dir(real))
	}
	return list
}
