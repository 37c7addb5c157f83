package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// site is a small site as there are millions: it has pages, an API, a stream
// and downloads, and has never heard of payments.
func site() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><title>The Old Site</title><h1>The Old Site</h1><p>Read <a href="/articles/1">an article</a>.</p>`)
	})
	mux.HandleFunc("GET /articles/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>Article</title><h1>Article %.20q</h1><p>Worth every cent.</p>\n", r.PathValue("id"))
	})
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("POST /api/render", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		writeJSON(w, map[string]any{"rendered_bytes": n, "sha256": fmt.Sprintf("%x", sum.Sum(nil))})
	})
	mux.HandleFunc("POST /v1/chat/completions", chat)
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 1; i <= 10; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if http.NewResponseController(w).Flush() != nil || !pause(r, 200*time.Millisecond) {
				return
			}
		}
	})
	mux.HandleFunc("GET /downloads/{name}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(1<<20))
		block := make([]byte, 1<<16)
		for range 16 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// pause waits, unless the client leaves.
func pause(r *http.Request, d time.Duration) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}

// startSite serves the site on a free port of loopback and returns its address.
func startSite() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: site(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // until the process ends
	return l.Addr().String(), nil
}
