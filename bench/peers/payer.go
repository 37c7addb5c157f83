package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// patience is how long an answer may take.
const patience = 60 * time.Second

// payer is who pays in a scene.
type payer struct {
	private string // 0x and hex
	key     *client.Key
}

func newPayer() (payer, error) {
	private, err := crypto.GenerateKey()
	if err != nil {
		return payer{}, err
	}
	p := payer{private: "0x" + hex.EncodeToString(crypto.FromECDSA(private))}
	p.key, err = client.ParseKey(p.private)
	return p, err
}

// errSigned keeps a payment from being sent.
var errSigned = errors.New("signed, not sent")

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// sign asks for something, signs a payment for it, and returns the payment's
// header without sending it.
func (p payer) sign(ctx context.Context, method, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var signed string
	c := client.Client{
		Key:     p.key,
		Confirm: func(context.Context, *client.Payment) error { return nil },
		Wait:    -1,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if signed = r.Header.Get(x402.HeaderPaymentSignature); signed != "" {
				return nil, errSigned
			}
			return http.DefaultTransport.RoundTrip(r)
		}),
	}
	r, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return "", err
	}
	if _, err := c.Do(r); signed == "" {
		return "", fmt.Errorf("%s %s: nothing to pay: %w", method, url, err)
	}
	return signed, nil
}

// answer is an answer, with its body read.
type answer struct {
	*http.Response
	body string
}

// send sends a request line as it is, and returns the answer.
func send(address, method, target string, header ...string) (answer, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	res, err := ask(conn, method, target, header...)
	if err != nil {
		return answer{}, fmt.Errorf("%s %q: %w", method, target, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %q: %w", method, target, err)
	}
	return answer{res, string(body)}, nil
}

// ask sends a request over the connection, and reads the head of its answer.
func ask(conn net.Conn, method, target string, header ...string) (*http.Response, error) {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, target, conn.RemoteAddr())
	if method == http.MethodPost {
		head += "Content-Length: 0\r\n"
	}
	for i := 0; i < len(header); i += 2 {
		head += header[i] + ": " + header[i+1] + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
}
