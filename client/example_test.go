package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/caddy-paywall/caddy-paywall/client"
)

// A program that pays up to five cents for a page, and never twice.
func Example() {
	key, err := client.ParseKey(os.Getenv("PAYWALL_KEY"))
	if err != nil {
		return
	}
	limit, err := client.ParseLimit("0.05")
	if err != nil {
		return
	}
	payer := &client.Client{Key: key, Limits: []client.Limit{limit}}

	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://shop.example/articles/1", nil)
	if err != nil {
		return
	}
	result, err := payer.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer result.Response.Body.Close()
	if result.Outcome == client.Delivered {
		_, _ = io.Copy(os.Stdout, result.Response.Body)
	}
}
