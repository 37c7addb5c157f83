package crawlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/crawlers/fetch"
)

const (
	maxList      = 4 << 20        // bytes
	listFresh    = 24 * time.Hour // until it is fetched again
	listRetry    = time.Minute    // after a failure, and then twice as long each time
	listRetryMax = 6 * time.Hour
	fileLook     = 10 * time.Second // how often a file of the operator's is looked at
)

// list is one list of addresses: a published one, which is fetched in the background, or a
// file of the operator's. The last one that was good stays: a list that has vanished, or
// become a web page, takes nothing away.
type list struct {
	source string // URL or file
	kept   string // the file in which a published one is kept across restarts, or ""
	client *http.Client
	logger *atomic.Pointer[zap.Logger] // of the config that runs

	prefixes atomic.Pointer[prefixes]
	watched  sync.Once
	seen     os.FileInfo // of the operator's file, before it was read
}

func (l *list) isFile() bool { return !strings.Contains(l.source, "://") }

// open reads what is on the disk. A file of the operator's has to be there and be good.
func (l *list) open() error {
	if l.isFile() {
		l.seen, _ = os.Stat(l.source)
		content, err := readFile(l.source)
		if err == nil {
			err = l.set(content)
		}
		if err != nil {
			return fmt.Errorf("ranges %s: %w", l.source, err)
		}
		return nil
	}
	if content, err := readFile(l.kept); err == nil {
		if err := l.set(content); err != nil {
			l.logger.Load().Warn("a list of addresses that was kept cannot be read; it is fetched again", zap.String("file", l.kept), zap.Error(err))
		}
	}
	return nil
}

// readFile reads a file that is no larger than a list may be.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator says which
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err == nil && len(content) > maxList {
		err = fmt.Errorf("larger than %d bytes", maxList)
	}
	return content, err
}

func (l *list) set(content []byte) error {
	p, err := parsePrefixes(content)
	if err != nil {
		return err
	}
	l.prefixes.Store(p)
	return nil
}

// watch keeps the list up to date, from the first time on that somebody asks for it: a
// site that a crawler never visits does not fetch its list.
func (l *list) watch(life context.Context) {
	l.watched.Do(func() {
		if l.isFile() {
			go l.watchFile(life)
		} else {
			go l.watchURL(life)
		}
	})
}

func (l *list) watchURL(life context.Context) {
	wait := time.Duration(0)
	if info, err := os.Stat(l.kept); err == nil && l.prefixes.Load() != nil {
		wait = min(max(time.Until(info.ModTime().Add(listFresh)), 0), listFresh)
	}
	for retry := listRetry; ; {
		if !sleep(life, wait) {
			return
		}
		if err := l.fetch(life); err != nil {
			if life.Err() != nil {
				return
			}
			l.logger.Load().Warn("a list of addresses cannot be fetched; the last good one is used, and without one nobody is verified by it", zap.String("list", l.source), zap.Bool("have_one", l.prefixes.Load() != nil), zap.Error(err))
			wait, retry = retry, min(2*retry, listRetryMax)
			continue
		}
		wait, retry = listFresh, listRetry
	}
}

func (l *list) fetch(life context.Context) error {
	document, err := fetch.Get(life, l.client, l.source, "application/json, text/plain;q=0.5", maxList)
	if err != nil {
		return err
	}
	if err := l.set(document.Body); err != nil {
		return err
	}
	if l.kept == "" {
		return nil
	}
	if err := keep(l.kept, document.Body); err != nil {
		l.logger.Load().Warn("a list of addresses cannot be kept; after a restart it is fetched again", zap.String("file", l.kept), zap.Error(err))
	}
	return nil
}

// keep writes a file whole or not at all.
func keep(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".list-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(content))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// keptAs is the file in which a published list is kept.
func keptAs(dir, source string) string {
	if dir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(source))
	return filepath.Join(dir, fmt.Sprintf("ranges-%x", sum[:12]))
}

func (l *list) watchFile(life context.Context) {
	for seen := l.seen; sleep(life, fileLook); {
		now, err := os.Stat(l.source)
		if err != nil || seen != nil && now.ModTime().Equal(seen.ModTime()) && now.Size() == seen.Size() {
			continue
		}
		seen = now
		content, err := readFile(l.source)
		if err == nil {
			err = l.set(content)
		}
		if err != nil {
			l.logger.Load().Error("a file of addresses has changed and cannot be used; what it said before is", zap.String("file", l.source), zap.Error(err))
		}
	}
}

// sleep waits, and says whether life goes on.
func sleep(life context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-life.Done():
		return false
	}
}
