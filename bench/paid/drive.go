//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// load is what a turn looked like from outside.
type load struct {
	requests int
	elapsed  time.Duration
	took     []time.Duration // sorted
}

func (l load) quantile(percent int) time.Duration { return l.took[(len(l.took)-1)*percent/100] }

// drive sends the requests over a number of connections, each of which sends the
// next one when it has the answer to the one before. Every answer must be the
// goods and, if they were paid for, carry a receipt of its own.
func drive(address string, connections int, requests [][]byte, paid bool) (l load, err error) {
	lines := make([]*line, connections)
	for i := range lines {
		if lines[i], err = dial(address); err != nil {
			return l, err
		}
		defer lines[i].conn.Close()
	}
	took, receipts := make([]time.Duration, len(requests)), make([]string, len(requests))
	errs := make([]error, connections)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range lines {
		wg.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				sent := time.Now()
				receipts[n], errs[i] = lines[i].send(requests[n])
				took[n] = time.Since(sent)
			}
		})
	}
	wg.Wait()
	l = load{requests: len(requests), elapsed: time.Since(begin), took: took}
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	slices.Sort(l.took)
	if paid {
		err = checkReceipts(receipts)
	}
	return l, err
}

// checkReceipts is for after the measurement. No two sales share a transaction.
func checkReceipts(receipts []string) error {
	seen := make(map[string]bool, len(receipts))
	for _, header := range receipts {
		r, err := x402.DecodeReceipt(header)
		if err != nil {
			return fmt.Errorf("receipt %q: %w", header, err)
		}
		if !r.Success || seen[r.Transaction] {
			return fmt.Errorf("receipt %q: not a sale of its own", header)
		}
		seen[r.Transaction] = true
	}
	return nil
}

// line is a connection. It is cheaper than net/http's client, which would take
// its time from the gateway on a small machine.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(address string) (*line, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &line{c, bufio.NewReader(c)}, nil
}

func (l *line) send(request []byte) (receipt string, err error) {
	if _, err := l.conn.Write(request); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	return res.Header.Get(x402.HeaderPaymentResponse), nil
}
