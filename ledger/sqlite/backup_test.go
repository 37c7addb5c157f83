package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestBackup takes a copy of a running ledger and goes on from it.
func TestBackup(t *testing.T) {
	dir := memoryDir(t)
	path, copied := filepath.Join(dir, "payments.db"), filepath.Join(dir, "backup.db")
	l := open(t, path, Options{})
	for _, s := range ledger.States() {
		bring(t, l, keyOf(s), s)
	}
	if err := l.RememberGenesis(t.Context(), "eip155:84532", "0xa"); err != nil {
		t.Fatal(err)
	}
	secret, _ := l.Secret(t.Context())
	flush(t, l)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if err := r.Backup(t.Context(), copied); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup over another: %v", err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("%v, %v", info, err)
	}
	if beside, _ := filepath.Glob(copied + "?*"); len(beside) > 0 {
		t.Errorf("a backup is one file; there are %s", beside)
	}
	bring(t, l, "after", ledger.Delivered)

	restored := open(t, copied, Options{})
	for _, s := range ledger.States() {
		p := wantState(t, restored, keyOf(s), afterRestart[s])
		if afterRestart[s] == "" {
			continue
		}
		want, err := l.Get(t.Context(), keyOf(s))
		if err != nil || string(p.Request) != string(want.Request) || p.Transaction != want.Transaction || !p.Created.Equal(want.Created) {
			t.Errorf("%+v was restored as %+v, %v", want, p, err)
		}
	}
	wantState(t, restored, "after", "")
	if err := restored.RememberGenesis(t.Context(), "eip155:84532", "0xb"); !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("another chain: %v", err)
	}
	if again, _ := restored.Secret(t.Context()); string(again) != string(secret) {
		t.Error("it has another secret")
	}
	bring(t, restored, "new", ledger.Delivered)
	if err := restored.Close(); err != nil {
		t.Fatal(err)
	}
	wantState(t, open(t, copied, Options{}), "new", ledger.Delivered)
}

// TestBackupBrokenOff: a backup that was not finished is not taken for one, and not
// overwritten.
func TestBackupBrokenOff(t *testing.T) {
	dir := memoryDir(t)
	path, copied := filepath.Join(dir, "payments.db"), filepath.Join(dir, "backup.db")
	open(t, path, Options{})
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := os.WriteFile(copied+".part", []byte("half of it"), fileMode); err != nil {
		t.Fatal(err)
	}
	if err := r.Backup(t.Context(), copied); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "broken off") {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(copied + ".part"); string(b) != "half of it" {
		t.Errorf("it is overwritten: %q", b)
	}
	if _, err := os.Stat(copied); err == nil {
		t.Error("there is a backup")
	}
}

// TestBackupStops: who gives up has no copy, and no half of one.
func TestBackupStops(t *testing.T) {
	dir := memoryDir(t)
	path, copied := filepath.Join(dir, "payments.db"), filepath.Join(dir, "backup.db")
	bring(t, open(t, path, Options{}), "k", ledger.Delivered)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Backup(ctx, copied); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
	if left, _ := filepath.Glob(copied + "*"); len(left) > 0 {
		t.Errorf("it leaves %s", left)
	}
}
