package chain

import (
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestNewLook(t *testing.T) {
	t.Setenv("NODE_URL", "https://node.example/"+secret)
	t.Setenv("CLEAR_URL", "http://node.example/"+secret)
	good := []string{"https://node.example"}
	for name, tt := range map[string]struct {
		networks map[string][]string
		err      string
	}{
		"none":         {nil, ""},
		"two":          {map[string][]string{"base": good, "eip155:137": {"http://127.0.0.1:8545", "{env.NODE_URL}"}}, ""},
		"twice":        {map[string][]string{"base": good, "eip155:8453": good}, "named twice"},
		"no chain":     {map[string][]string{"bass": good}, "no such chain"},
		"Solana":       {map[string][]string{"solana": good}, "no EVM chain"},
		"no URL":       {map[string][]string{"base": {}}, "rpc is missing"},
		"nine URLs":    {map[string][]string{"base": {"", "", "", "", "", "", "", "", ""}}, "8 are enough"},
		"no such env":  {map[string][]string{"base": {"https://node.example", "{env.NO_SUCH_VARIABLE}"}}, "rpc 2: {env.NO_SUCH_VARIABLE} is unset"},
		"in the clear": {map[string][]string{"base": {"{env.CLEAR_URL}"}}, "use https"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLook(tt.networks, zap.NewNop())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), secret) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if l.Sees("eip155:8453") != (tt.networks != nil) || l.Sees("eip155:1") {
				t.Error("it sees what it does not")
			}
			l.Close()
		})
	}
}
