package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// image is the files of a ledger at one moment, and what must be in them.
type image struct {
	files    map[string][]byte // by what follows the name of the database
	payments map[ledger.Key]ledger.Payment
}

// newImage sells, restarts, sells, cleans up, sells, and is killed.
func newImage(t *testing.T, n int) image {
	t.Helper()
	path := filepath.Join(memoryDir(t), "payments.db")
	var l *Ledger
	for i := range n {
		if l == nil {
			var err error
			if l, err = Open(path, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		p := payment(ledger.Key(fmt.Sprint("key ", i)))
		p.Payer, p.URL = fmt.Sprint("0x", i%17), fmt.Sprint("/articles/", i%29)
		p.Request = []byte(strings.Repeat("signature ", 1+i%300))
		c, err := l.Claim(t.Context(), p, testLease)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range way(ledger.States()[i%8]) {
			if _, err := l.Move(t.Context(), c, ledger.Change{To: to, Transaction: fmt.Sprint("0x", i), Answer: make([]byte, i%5*1000)}); err != nil {
				t.Fatal(err)
			}
		}
		if i == n/3 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = nil
		}
		if i == n*2/3 {
			flush(t, l)
			l.chores()
		}
	}
	defer func() { _ = l.Close() }()
	flush(t, l)
	img := image{map[string][]byte{}, map[ledger.Key]ledger.Payment{}}
	for name, b := range contents(t, path) {
		if suffix := strings.TrimPrefix(name, "payments.db"); suffix != "-shm" { // of no use to the next process
			img.files[suffix] = b
		}
	}
	rows, err := l.file.rows(t.Context(), selectRow)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rows {
		if s.payment.State != ledger.Released {
			img.payments[s.payment.Key] = s.payment
		}
	}
	if len(img.files) != 3 || len(img.files["-wal"]) < 100_000 || len(img.payments) < n/2 {
		t.Fatalf("%d files, %d bytes of log, %d payments", len(img.files), len(img.files["-wal"]), len(img.payments))
	}
	return img
}

// harm damages one file of it at a random place, and says how.
func (img image) harm(random *rand.Rand) (files map[string][]byte, how string) {
	files = map[string][]byte{}
	for name, b := range img.files {
		files[name] = append([]byte(nil), b...)
	}
	name := []string{"", "", "", "-wal", "-wal", ".lock"}[random.IntN(6)]
	if name != ".lock" && name != "-wal" && random.IntN(3) == 0 {
		delete(files, ".lock") // nothing else knows of the database
	}
	b := files[name]
	at := random.IntN(len(b))
	page := at / 4096 * 4096
	switch kind := random.IntN(8); kind {
	case 0:
		if _, marked := files[".lock"]; marked {
			delete(files, name)
			return files, name + " is removed"
		}
		fallthrough
	case 1:
		if at == 0 {
			at = 1 // nothing but an empty file is left else, as of a new ledger
		}
		files[name] = b[:at]
		return files, fmt.Sprintf("%s is cut at %d", name, at)
	case 2:
		if page == 0 {
			page = 1
		}
		files[name] = b[:page]
		return files, fmt.Sprintf("%s is cut at the page at %d", name, page)
	case 3:
		clear(b[page:min(page+4096, len(b))])
		return files, fmt.Sprintf("%s is zero from %d on", name, page)
	case 4:
		sector := at / 512 * 512
		clear(b[sector:min(sector+512, len(b))])
		return files, fmt.Sprintf("the sector of %s at %d is zero", name, sector)
	case 5:
		if len(b) >= 4096 { // a page that was written to another's place
			other := random.IntN(len(b)/4096) * 4096
			copy(b[min(page, len(b)-4096):], b[other:other+4096])
			return files, fmt.Sprintf("%s has at %d the page at %d", name, page, other)
		}
		fallthrough
	default:
		bit := random.IntN(8)
		b[at] ^= 1 << bit
		return files, fmt.Sprintf("bit %d of %s at %d is flipped", bit, name, at)
	}
}

// TestDamagedImages: a ledger with a file that is cut, flipped, zeroed, mixed up or removed
// at a random place is not opened and says what to do, or it has each payment as it was, or
// an error for it. None is sold again, and none that is owed is forgotten. What the refusal
// advises works: a copy that the backup makes of a damaged ledger has every payment.
func TestDamagedImages(t *testing.T) {
	images, payments, seed := 56, 200, uint64(20261130)
	soak := os.Getenv("SOAK")
	long := soak == "long" || soak == "full"
	if long {
		images, payments, seed = 1000, 600, uint64(time.Now().UnixNano())
	}
	if n, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SOAK_SEED=%d", seed)
	img := newImage(t, payments)
	dir := memoryDir(t)
	refused, whole, rowErrors, copied := 0, 0, 0, 0
	for i := range images {
		files, how := img.harm(rand.New(rand.NewPCG(seed, uint64(i))))
		path := filepath.Join(dir, strconv.Itoa(i), "payments.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		for suffix, b := range files {
			write(t, path+suffix, string(b))
		}
		l, err := Open(path, Options{})
		switch {
		case err == nil:
			bad := img.holds(t, how, l)
			if rowErrors += bad; bad == 0 {
				whole++
			}
			_ = l.Close()
		case !errors.Is(err, errDamaged) && !errors.Is(err, errMissing) && !errors.Is(err, errOther) || !strings.Contains(err.Error(), path):
			t.Errorf("image %d, %s: %v", i, how, err)
		default:
			refused++
			if (long || i%10 == 0) && errors.Is(err, errDamaged) && !strings.Contains(err.Error(), "it lacks the latest") && img.copies(t, how, path) {
				copied++
			}
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d images: %d refused (%d of them mended by a backup), %d whole, %d errors for a row", images, refused, copied, whole, rowErrors)
}

// copies says whether a backup can be made of a ledger, which has all then.
func (img image) copies(t *testing.T, how, path string) bool {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		return false
	}
	defer func() { _ = r.Close() }()
	copied := filepath.Join(filepath.Dir(path), "copy.db")
	if err := r.Backup(t.Context(), copied); err != nil {
		return false
	}
	l, err := Open(copied, Options{})
	if err != nil {
		t.Errorf("%s: the copy: %v", how, err)
		return false
	}
	defer func() { _ = l.Close() }()
	if bad := img.holds(t, "the copy where "+how, l); bad > 0 {
		t.Errorf("%s: the copy has errors for %d rows", how, bad)
	}
	return true
}

// holds tests that a ledger has each payment as it was, or an error for it, and says for
// how many.
func (img image) holds(t *testing.T, how string, l *Ledger) (bad int) {
	t.Helper()
	open := map[ledger.Key]bool{}
	var listing error
	for p, err := range l.List(t.Context(), ledger.Filter{States: []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Unknown}}) {
		listing = err
		open[p.Key] = true
	}
	for key, want := range img.payments {
		p, err := l.Get(t.Context(), key)
		if err != nil {
			bad++
		}
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			t.Errorf("%s: %s, %s, is forgotten", how, key, want.State)
		case err == nil && !reflect.DeepEqual(p, want):
			t.Errorf("%s: %s is\n%+v, and was\n%+v", how, key, p, want)
		}
		if want.State.Open() && listing == nil && !open[key] {
			t.Errorf("%s: %s, %s, is in no list", how, key, want.State)
		}
		if _, err := l.Claim(t.Context(), payment(key), testLease); err == nil && want.State != ledger.Refused {
			t.Errorf("%s: %s, %s, is sold again", how, key, want.State)
		}
	}
	return bad
}

// TestAnIndexThatLostAPayment: SQLite finds nothing where one bit of an index has changed,
// and the payment would be sold again. The ledger is not opened; with what the refusal
// advises, it is whole again.
func TestAnIndexThatLostAPayment(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	for i := range 50 {
		bring(t, l, ledger.Key(fmt.Sprint("key ", i)), ledger.Delivered)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b := contents(t, path)["payments.db"]
	hash := digestOf("key 7")
	at := -1
	for i := range len(b) - len(hash) { // in the table it stands before the key
		if string(b[i:i+len(hash)]) == string(hash[:]) && string(b[i+len(hash):i+len(hash)+5]) != "key 7" {
			at = i
		}
	}
	if at < 0 {
		t.Fatal("it is not in the index")
	}
	b[at+3] ^= 4
	write(t, path, string(b))
	d, err := openDatabase(path, "ro")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := d.get(t.Context(), "key 7"); err != nil || found.id != 0 {
		t.Errorf("SQLite notices by itself: %+v, %v", found, err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(path, Options{}); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "payments backup") || !strings.Contains(err.Error(), "50 payments are whole, 0 unreadable and 0 missing") {
		t.Errorf("it opens: %v", err)
		if err == nil {
			_ = l.Close()
		}
	}
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := path + "-copy"
	if err := errors.Join(r.Backup(t.Context(), copied), r.Close()); err != nil {
		t.Fatal(err)
	}
	away := memoryDir(t)
	for name := range contents(t, path) {
		if name != filepath.Base(copied) {
			rename(t, filepath.Join(filepath.Dir(path), name), filepath.Join(away, name))
		}
	}
	rename(t, copied, path)
	mended := open(t, path, Options{})
	for i := range 50 {
		wantUsed(t, mended, ledger.Key(fmt.Sprint("key ", i)))
	}
}

// TestBackupOfADamagedIndex: where a page of an index is gone that no payment depends on,
// a backup has every payment, and what else the ledger knows.
func TestBackupOfADamagedIndex(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	for i := range 50 {
		bring(t, l, ledger.Key(fmt.Sprint("key ", i)), ledger.Settled)
	}
	if err := l.RememberGenesis(t.Context(), "eip155:84532", "0xa"); err != nil {
		t.Fatal(err)
	}
	secret, _ := l.Secret(t.Context())
	flush(t, l)
	d, err := openDatabase(path, "ro")
	if err != nil {
		t.Fatal(err)
	}
	var root int
	if _, err := d.one("SELECT rootpage FROM sqlite_schema WHERE name = 'payments_identifier'", nil, &root); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	b := contents(t, path)["payments.db"]
	clear(b[4096*(root-1) : 4096*root])
	write(t, path, string(b))
	if _, err := Open(path, Options{}); !errors.Is(err, errDamaged) {
		t.Errorf("it opens: %v", err)
	}
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(memoryDir(t), "copy.db")
	if err := errors.Join(r.Backup(t.Context(), copied), r.Close()); err != nil {
		t.Fatal(err)
	}
	mended := open(t, copied, Options{})
	for i := range 50 {
		if p := wantState(t, mended, ledger.Key(fmt.Sprint("key ", i)), ledger.Settled); len(p.Request) == 0 {
			t.Error("it has lost its request")
		}
	}
	if again, _ := mended.Secret(t.Context()); string(again) != string(secret) {
		t.Error("it has another secret")
	}
	if err := mended.RememberGenesis(t.Context(), "eip155:84532", "0xb"); !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("another chain: %v", err)
	}
}
