package interop

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// stack is what stack.mjs says of itself.
type stack struct {
	RPC         string    `json:"rpc"`
	Facilitator string    `json:"facilitator"`
	Token       string    `json:"token"`
	Tether      string    `json:"tether"` // ERC-20 and nothing more
	Permit2     string    `json:"permit2"`
	Payers      []account `json:"payers"`
	Penniless   account   `json:"penniless"`
	Gas         account   `json:"gas"`
	Payee       string    `json:"payee"`
}

type account struct {
	Address    string `json:"address"`
	PrivateKey string `json:"privateKey"`
}

// node finds Node.js and the packages. Their absence is a failure: a test that
// skips itself proves nothing, and nobody notices.
func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("Node.js is missing: install Node.js 20 or newer, then run `make deps`")
	}
	if _, err := os.Stat(filepath.Join("node_modules", "@x402", "fetch", "package.json")); err != nil {
		t.Fatal("the official clients are missing: run `make deps`")
	}
	return path
}

// endWith asks a process to end when the test does, and looks how it ends.
func endWith(t *testing.T, name string, cmd *exec.Cmd, ask func()) {
	t.Cleanup(func() {
		ask()
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended badly: %v", name, err)
		}
	})
}

// startStack starts the chain and the official facilitator for the length of
// the test.
func startStack(t *testing.T) *stack {
	t.Helper()
	cmd := exec.Command(node(t), "stack.mjs")
	cmd.Stderr = logTo(t, "stack")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It ends when its standard input does, and takes the chain along.
	endWith(t, "the stack", cmd, func() { _ = stdin.Close() })

	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the stack did not start: %v", err)
	}
	var s stack
	if err := json.Unmarshal(line, &s); err != nil {
		t.Fatalf("the stack said %q: %v", line, err)
	}
	return &s
}
