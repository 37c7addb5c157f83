//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// mint is the site behind the gateway: each request gets the next number.
type mint struct {
	http.Server
	address string
	minted  atomic.Int64
}

func startMint() (*mint, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mint{address: l.Addr().String()}
	m.ReadHeaderTimeout = time.Minute
	m.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "one mints by POST", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"number":%d}`, m.minted.Add(1))
	})
	go func() { _ = m.Serve(l) }()
	return m, nil
}
