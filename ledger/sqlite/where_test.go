package sqlite

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhereIsOneForOneFile, however it is spelled, before it is there and after.
func TestWhereIsOneForOneFile(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(dir, "link")); err != nil {
		t.Skip("no links here: ", err)
	}
	want := (&Module{File: filepath.Join(real, "a.db")}).Where()
	spellings := []string{real + "/./a.db", filepath.Join(dir, "link", "a.db")}
	for _, there := range []bool{false, true} {
		if there {
			if err := os.WriteFile(filepath.Join(real, "a.db"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("a.db", filepath.Join(real, "b.db")); err != nil {
				t.Fatal(err)
			}
			spellings = append(spellings, filepath.Join(real, "b.db"))
		}
		for _, file := range spellings {
			m := &Module{File: file}
			if got := m.Where(); got != want {
				t.Errorf("there: %v, %s is at %q, want %q", there, file, got, want)
			}
			if err := m.Exists(); (err == nil) != there {
				t.Errorf("there: %v, %s: %v", there, file, err)
			}
		}
	}
	if got := (&Module{File: "{env.PAYWALL_TEST_UNSET}"}).Where(); got != "" {
		t.Errorf("without the file's name it is at %q", got)
	}
}
