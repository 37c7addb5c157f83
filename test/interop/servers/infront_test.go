//go:build servers

package servers

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	harness "github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A proxy in front of the gate, with its defaults, hands on the price of an upload. nginx asks
// for each request over a connection that ends with it, and answers 502 when that is reset
// under an upload, even a short one.
func TestProxiesInFrontHandOnThePriceOfAnUpload(t *testing.T) {
	w := harness.New(t, "price /paid/* $0.01")
	upstream := strings.TrimPrefix(w.URL, "http://")
	for name, start := range map[string]func(*testing.T, string) string{"nginx": nginxInFront, "HAProxy": haproxyInFront} {
		t.Run(name, func(t *testing.T) {
			address := start(t, upstream)
			for _, size := range []int{20_000, 300_000, 1_000_000} { // nginx takes no more than 1 MiB
				for try := range 20 {
					since := time.Now()
					status, err := post("http://"+address+"/paid/x", make([]byte, size))
					// The gate's server leaves the connection half open for 500 ms. A proxy that
					// has not read by then, on a busy machine, loses the answer.
					if status != http.StatusPaymentRequired && time.Since(since) > 400*time.Millisecond {
						t.Logf("too late: %d, %v", status, err)
					} else if status != http.StatusPaymentRequired {
						t.Errorf("%d bytes, try %d: %d, %v", size, try, status, err)
					}
				}
			}
		})
	}
	w.Counts(0, 0, 0)
}

func post(url string, body []byte) (status int, err error) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	res, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func nginxInFront(t *testing.T, upstream string) string {
	dir, address := t.TempDir(), loopback.FreeAddress(t)
	user := ""
	if root() {
		user = "user root;"
	}
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, `
daemon off;
%[4]s
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://%[3]s;
			proxy_set_header Host $host;
		}
	}
}
`, dir, address, upstream, user))
	start(t, address, dir, program(t, "/usr/sbin/nginx"), "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	return address
}

func haproxyInFront(t *testing.T, upstream string) string {
	dir, address := t.TempDir(), loopback.FreeAddress(t)
	write(t, filepath.Join(dir, "haproxy.cfg"), fmt.Appendf(nil, `
defaults
	mode http
	timeout connect 5s
	timeout client 50s
	timeout server 50s
listen site
	bind %s
	server gate %s
`, address, upstream))
	start(t, address, dir, program(t, "/usr/sbin/haproxy"), "-f", filepath.Join(dir, "haproxy.cfg"), "-db")
	return address
}
