package sqlite

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// lookEvery is how often the writer looks whether the files are where they were. Whoever
// waits for a transaction has it looked at with that too.
const lookEvery = time.Second

// errMoved is for files that were taken away from a ledger that is open.
var errMoved = errors.New("the ledger's files are not those that it has opened")

// held are the files that the ledger has open, by device and inode: SQLite goes on with
// what it has open when somebody removes it or puts another in its place, and all that it
// writes is gone with the process.
type held map[string]fs.FileInfo

// openFiles notes the files of a ledger that was just opened.
func openFiles(path string) (held, error) {
	all := held{}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		_ = os.SameFile(info, info) // Windows finds out when it is first asked
		all[name] = info
	}
	return all, nil
}

// inPlace says which of them is not where it was. It opens none: to close one would let go
// of SQLite's locks on it.
func (f held) inPlace() error {
	for name, was := range f {
		info, err := os.Stat(name)
		what := "was replaced by another file"
		switch {
		case errors.Is(err, fs.ErrNotExist):
			what = "was removed"
		case err != nil:
			what = fmt.Sprintf("cannot be seen (%v)", err)
		case !os.SameFile(was, info):
		case was.Size() > 0 && info.Size() == 0 && !strings.HasSuffix(name, "-wal"): // which is emptied at times
			what = "was emptied"
		default:
			continue
		}
		return fmt.Errorf("%w: %s %s: put the very file back (mv it, or mount its volume again) and the ledger goes on; else stop this process, restore a backup, and start again; do not start without, for what was sold would be forgotten", errMoved, name, what)
	}
	return nil
}

// mark is what the lock file says of the database: it would not be known else that it is
// missing, or is an older one, or that its write-ahead log was cut, which SQLite takes for
// the end of it.
type mark struct {
	version int
	changes int64 // how many there were at least
}

// The lock file: the process that has it, and the mark, of a fixed length, with a checksum.
// It is not synced, for what it says is then only less than is true.
const lockLine, markLine = "%-20d\n", "schema %06d changes %020d"

// readMark reads the mark; known is false if there is none that can be read.
func readMark(lock io.ReaderAt) (m mark, known bool) {
	b := make([]byte, 256)
	n, _ := lock.ReadAt(b, 0)
	lines := strings.Split(string(b[:n]), "\n")
	if len(lines) < 2 {
		return mark{}, false
	}
	text, sum, _ := strings.Cut(lines[1], " sum ")
	if sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text))) {
		return mark{}, false
	}
	_, err := fmt.Sscanf(text, "schema %d changes %d", &m.version, &m.changes)
	return m, err == nil
}

// write writes the mark.
func (m mark) write(lock *os.File) error {
	text := fmt.Sprintf(markLine, m.version, m.changes)
	_, err := fmt.Fprintf(io.NewOffsetWriter(lock, int64(len(fmt.Sprintf(lockLine, 0)))), "%s sum %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
	return err
}

// traces says what beside a database that is missing or empty shows that there was one.
func traces(path string, marked bool) string {
	for _, suffix := range []string{"-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); err == nil && (info.Size() > 0 || suffix == "-wal") {
			return path + suffix
		}
	}
	if marked {
		return path + ".lock"
	}
	return ""
}

// errMissing is for a database that is not there where there was one.
var errMissing = errors.New("the database is missing")

func missingDatabase(path, trace string) error {
	return fmt.Errorf("%w or empty, and %s shows that there was one: put %s back, or restore a backup; for a new ledger, which forgets what was sold and is owed, move all of %s* to another place", errMissing, trace, path, path)
}
