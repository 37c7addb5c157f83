//go:build linux

package main

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// upstream is the site behind the gateways. It runs in the driver: only the
// processor time of gateways counts.
type upstream struct {
	http.Server
	address string
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	body := []byte(`{"goods":"` + strings.Repeat("x", 240) + `"}`)
	length := strconv.Itoa(len(body))
	u := &upstream{address: l.Addr().String()}
	u.ReadHeaderTimeout = time.Minute
	u.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(body)
	})
	go func() { _ = u.Serve(l) }()
	return u, nil
}
