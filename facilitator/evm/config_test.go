package evm

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func TestCaddyfile(t *testing.T) {
	const rest = "\n rpc https://a.example\n signer {env.GAS_KEY}\n"
	tests := map[string]struct{ in, want, err string }{
		"whole": {
			in:   "evm {\n network base {\n rpc https://a.example/k https://b.example {env.RPC}\n signer {file./run/secrets/key}\n confirmations 3\n }\n network eip155:5 {\n rpc http://127.0.0.1:8545 ws://[::1]:8546\n signer {env.GAS_KEY}\n }\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example/k","https://b.example","{env.RPC}"],"signers":["{file./run/secrets/key}"],"confirmations":3},"eip155:5":{"rpc":["http://127.0.0.1:8545","ws://[::1]:8546"],"signers":["{env.GAS_KEY}"]}}}`,
		},
		"nothing":         {in: "evm", err: "at least one network"},
		"empty block":     {in: "evm {\n}", err: "at least one network"},
		"argument":        {in: "evm base {\n}", err: `surplus word "base"`},
		"unknown word":    {in: "evm {\n chain base\n}", err: `unknown word "chain"`},
		"no name":         {in: "evm {\n network {" + rest + "}\n}", err: "not 0 words"},
		"two names":       {in: "evm {\n network base polygon {" + rest + "}\n}", err: "not 2 words"},
		"unknown chain":   {in: "evm {\n network bass {" + rest + "}\n}", err: "there is no such chain"},
		"not EVM":         {in: "evm {\n network solana {" + rest + "}\n}", err: "is no EVM chain"},
		"chain twice":     {in: "evm {\n network base {" + rest + "}\n network eip155:8453 {" + rest + "}\n}", err: "given twice"},
		"no rpc":          {in: "evm {\n network base {\n signer {env.K}\n}\n}", err: "rpc is missing"},
		"no signer":       {in: "evm {\n network base {\n rpc https://a.example\n}\n}", err: "signer is missing"},
		"no block":        {in: "evm {\n network base\n}", err: "rpc is missing"},
		"rpc without URL": {in: "evm {\n network base {\n rpc\n signer {env.K}\n}\n}", err: "rpc wants something"},
		"rpc twice":       {in: "evm {\n network base {" + rest + " rpc https://b.example\n}\n}", err: "rpc is given twice"},
		"nine URLs":       {in: "evm {\n network base {\n rpc" + strings.Repeat(" https://a.example", 9) + "\n signer {env.K}\n}\n}", err: "8 are enough"},
		"two signers": {
			in:   "evm {\n network base {\n rpc https://a.example\n signer {env.A} {file./run/b}\n}\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example"],"signers":["{env.A}","{file./run/b}"]}}}`,
		},
		"signer in two lines": {in: "evm {\n network base {" + rest + " signer {env.B}\n}\n}", err: "signer is given twice; write all of it in one line"},
		"no key":              {in: "evm {\n network base {\n rpc https://a.example\n signer\n}\n}", err: "signer wants something"},
		"signer repeated":     {in: "evm {\n network base {\n rpc https://a.example\n signer {env.A} {env.B} {env.A}\n}\n}", err: "signer 3: {env.A} is given twice; remove one, at Testfile:4"},
		"second key literal":  {in: "evm {\n network base {\n rpc https://a.example\n signer {env.A} " + signerKey + "\n}\n}", err: "signer 2: the key must be given as"},
		"17 signers":          {in: "evm {\n network base {\n rpc https://a.example\n signer" + numbered(17) + "\n}\n}", err: "17 signers; 16 are enough"},
		"keystores": {
			in:   "evm {\n network base {\n rpc https://a.example\n signer {env.A} keystore {file./run/key} {file./run/password} {env.B} keystore {env.C} {env.D}\n}\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example"],"signers":["{env.A}","keystore {file./run/key} {file./run/password}","{env.B}","keystore {env.C} {env.D}"]}}}`,
		},
		"keystore alone":        {in: "evm {\n network base {\n rpc https://a.example\n signer keystore\n}\n}", err: "signer 1: after keystore come"},
		"keystore, no password": {in: "evm {\n network base {\n rpc https://a.example\n signer {env.A} keystore {file./run/key}\n}\n}", err: "signer 2: after keystore come"},
		"keystore, literal":     {in: "evm {\n network base {\n rpc https://a.example\n signer keystore {file./run/key} " + secret + "\n}\n}", err: "consider it known"},
		"keystore repeated":     {in: "evm {\n network base {\n rpc https://a.example\n signer keystore {env.A} {env.B} keystore {env.A} {env.B}\n}\n}", err: "given twice; remove one"},
		"literal key":           {in: "evm {\n network base {\n rpc https://a.example\n signer " + signerKey + "\n}\n}", err: "shows in config dumps"},
		"literal key, 0x":       {in: "evm {\n network base {\n rpc https://a.example\n signer 0x" + signerKey + "\n}\n}", err: "consider it known"},
		"other placeholder":     {in: "evm {\n network base {\n rpc https://a.example\n signer {http.request.header.K}\n}\n}", err: "must be given as"},
		"part placeholder":      {in: "evm {\n network base {\n rpc https://a.example\n signer 0x{env.K}\n}\n}", err: "must be given as"},
		"confirmations 0":       {in: "evm {\n network base {" + rest + " confirmations 0\n}\n}", err: "from 1 to 100"},
		"confirmations 101":     {in: "evm {\n network base {" + rest + " confirmations 101\n}\n}", err: "from 1 to 100"},
		"confirmations 1 2":     {in: "evm {\n network base {" + rest + " confirmations 1 2\n}\n}", err: "from 1 to 100"},
		"confirmations twice":   {in: "evm {\n network base {" + rest + " confirmations 1\n confirmations 1\n}\n}", err: "given twice"},
		"quorum": {
			in:   "evm {\n network base {\n rpc https://a.example https://b.example\n signer {env.A}\n quorum 2\n}\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example","https://b.example"],"signers":["{env.A}"],"quorum":2}}}`,
		},
		"quorum above": {
			in:   "evm {\n network base {\n rpc https://a.example https://b.example\n signer {env.A}\n quorum 2 above $5\n}\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example","https://b.example"],"signers":["{env.A}"],"quorum":2,"quorum_above":"$5"}}}`,
		},
		"quorum above nothing": {in: "evm {\n network base {" + rest + " quorum 1 above\n}\n}", err: "quorum wants one number"},
		"quorum above 5":       {in: "evm {\n network base {" + rest + " quorum 1 above 5\n}\n}", err: "does not say of what"},
		"quorum below":         {in: "evm {\n network base {" + rest + " quorum 1 below $5\n}\n}", err: "quorum wants one number"},
		"quorum of too few":    {in: "evm {\n network base {" + rest + " quorum 2\n}\n}", err: "quorum 2: must be 1 to 1"},
		"quorum of one twice":  {in: "evm {\n network base {\n rpc https://a.example https://a.example\n signer {env.A}\n quorum 2\n}\n}", err: "quorum 2: must be 1 to 1"},
		"quorum 0":             {in: "evm {\n network base {" + rest + " quorum 0\n}\n}", err: "quorum wants one number from 1 to 8"},
		"quorum 2 3":           {in: "evm {\n network base {" + rest + " quorum 2 3\n}\n}", err: "quorum wants one number"},
		"quorum, none":         {in: "evm {\n network base {" + rest + " quorum\n}\n}", err: "quorum wants something"},
		"quorum twice":         {in: "evm {\n network base {" + rest + " quorum 1\n quorum 1\n}\n}", err: "quorum is given twice"},
		"factories": {
			in:   "evm {\n erc6492_factory " + payee + " 0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266\n network base {" + rest + " approval_budget 0.01/day\n}\n erc6492_factory " + signerAddress + "\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example"],"signers":["{env.GAS_KEY}"],"approval_budget":"0.01/day"}},"erc6492_factories":["` + payee + `","0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266","` + signerAddress + `"]}`,
		},
		"factory, short":    {in: "evm {\n erc6492_factory 0x1\n}", err: "40 hexadecimal digits"},
		"factory, none":     {in: "evm {\n erc6492_factory\n}", err: "wants the address"},
		"factory, mistyped": {in: "evm {\n erc6492_factory 0x209693bc6afc0C5328bA36FaF03C514EF312287C\n}", err: "copy it anew"},
		"factory, twice":    {in: "evm {\n erc6492_factory " + payee + "\n erc6492_factory " + payee + "\n}", err: "given twice"},
		"factory, zero":     {in: "evm {\n erc6492_factory 0x0000000000000000000000000000000000000000\n}", err: "makes no wallets"},
		"factory, Permit2":  {in: "evm {\n erc6492_factory 0x000000000022D473030F116dDEE9F6B43aC78BA3\n}", err: "makes no wallets"},
		"factory, block":    {in: "evm {\n erc6492_factory " + payee + " {\n x\n}\n}", err: "begins a block"},
		"coin price": {
			in:   "evm {\n network base {" + rest + " coin_price $3000\n}\n}",
			want: `{"networks":{"base":{"rpc":["https://a.example"],"signers":["{env.GAS_KEY}"],"coin_price":"$3000"}}}`,
		},
		"coin price, none":       {in: "evm {\n network base {" + rest + " coin_price\n}\n}", err: "wants something"},
		"coin price, no dollars": {in: "evm {\n network base {" + rest + " coin_price 3000\n}\n}", err: "does not say of what"},
		"coin price, euros":      {in: "evm {\n network base {" + rest + " coin_price \"3000 eurc\"\n}\n}", err: "write dollars"},
		"coin price, two":        {in: "evm {\n network base {" + rest + " coin_price $3000 $1\n}\n}", err: "wants what one"},
		"coin price, twice":      {in: "evm {\n network base {" + rest + " coin_price $3000\n coin_price $1\n}\n}", err: "given twice"},
		"budget, none":           {in: "evm {\n network base {" + rest + " approval_budget\n}\n}", err: "wants something"},
		"budget, no day":         {in: "evm {\n network base {" + rest + " approval_budget 0.01\n}\n}", err: "like 0.01/day"},
		"budget, zero":           {in: "evm {\n network base {" + rest + " approval_budget 0/day\n}\n}", err: "is zero"},
		"budget, sign":           {in: "evm {\n network base {" + rest + " approval_budget -1/day\n}\n}", err: "has a sign"},
		"budget, exponent":       {in: "evm {\n network base {" + rest + " approval_budget 1e-3/day\n}\n}", err: "has an exponent"},
		"budget, finer":          {in: "evm {\n network base {" + rest + " approval_budget 0.0000000000000000001/day\n}\n}", err: "finer"},
		"budget, two words":      {in: "evm {\n network base {" + rest + " approval_budget 0.01 /day\n}\n}", err: "wants one amount"},
		"budget, twice":          {in: "evm {\n network base {" + rest + " approval_budget 1/day\n approval_budget 1/day\n}\n}", err: "given twice"},
		"unknown option":         {in: "evm {\n network base {" + rest + " gas 1\n}\n}", err: `unknown word "gas"`},
		"block in a line":        {in: "evm {\n network base {\n signer {env.K}\n rpc https://a.example {\n x\n}\n}\n}", err: "begins a block"},
		"http":                   {in: "evm {\n network base {\n rpc http://a.example/" + secret + "\n signer {env.K}\n}\n}", err: "use https"},
		"ws":                     {in: "evm {\n network base {\n rpc ws://a.example\n signer {env.K}\n}\n}", err: "use https"},
		"ftp":                    {in: "evm {\n network base {\n rpc ftp://a.example\n signer {env.K}\n}\n}", err: "use https"},
		"part of a URL":          {in: "evm {\n network base {\n rpc https://a.example/{env.K}\n signer {env.K}\n}\n}", err: "not the whole of it"},
		"link-local":             {in: "evm {\n network base {\n rpc https://169.254.169.254/\n signer {env.K}\n}\n}", err: "cannot be at"},
		"port":                   {in: "evm {\n network base {\n rpc https://a.example:99999/\n signer {env.K}\n}\n}", err: ""},
		"fragment":               {in: "evm {\n network base {\n rpc https://a.example/#" + secret + "\n signer {env.K}\n}\n}", err: "fragment"},
		"no URL":                 {in: "evm {\n network base {\n rpc a.example\n signer {env.K}\n}\n}", err: "this is no URL"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := new(Facilitator)
			err := f.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.in))
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if strings.Contains(err.Error(), signerKey) || strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := json.Marshal(f); string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// numbered lists so many keys.
func numbered(n int) (list string) {
	for i := range n {
		list += fmt.Sprintf(" {env.KEY_%d}", i)
	}
	return list
}

func TestProvision(t *testing.T) {
	key := keyFile(t, "0x"+signerKey)
	good := func() *Network { return &Network{RPC: []string{"https://a.example"}, Signers: []string{key}} }
	with := func(change func(*Network)) map[string]*Network {
		n := good()
		change(n)
		return map[string]*Network{"base": n}
	}
	t.Setenv("EMPTY", "")
	t.Setenv("NODE_URL", "http://10.0.0.1/"+secret)
	tests := map[string]struct {
		networks map[string]*Network
		err      string
	}{
		"good":              {map[string]*Network{"base": good(), "eip155:137": good()}, ""},
		"none":              {nil, "no network"},
		"null":              {map[string]*Network{"base": nil}, "no settings"},
		"unknown":           {map[string]*Network{"bass": good()}, "no such chain"},
		"Solana":            {map[string]*Network{"solana": good()}, "no EVM chain"},
		"twice":             {map[string]*Network{"base": good(), "eip155:8453": good()}, "named twice"},
		"no rpc":            {with(func(n *Network) { n.RPC = nil }), "rpc is missing"},
		"no signer":         {with(func(n *Network) { n.Signers = nil }), "signer is missing"},
		"two signers":       {with(func(n *Network) { n.Signers = []string{key, keyFile(t, secondKey)} }), ""},
		"signer repeated":   {with(func(n *Network) { n.Signers = []string{key, key} }), "given twice; remove one"},
		"same key, other":   {with(func(n *Network) { n.Signers = []string{key, keyFile(t, signerKey)} }), "that of " + signerAddress + "; remove one"},
		"second key bad":    {with(func(n *Network) { n.Signers = []string{key, keyFile(t, "00")} }), "signer 2: "},
		"17 signers":        {with(func(n *Network) { n.Signers = strings.Fields(numbered(17)) }), "16 are enough"},
		"budget":            {with(func(n *Network) { n.ApprovalBudget = "1 eth" }), "like 0.01/day"},
		"confirmations":     {with(func(n *Network) { n.Confirmations = -1 }), "must be 1 to 59"},
		"quorum":            {with(func(n *Network) { n.RPC, n.Quorum = []string{"https://a.example", "https://b.example"}, 2 }), ""},
		"quorum of too few": {with(func(n *Network) { n.Quorum = 2 }), "quorum 2: must be 1 to 1"},
		"quorum below 0":    {with(func(n *Network) { n.Quorum = -1 }), "must be 1 to 1"},
		"literal key":       {with(func(n *Network) { n.Signers = []string{signerKey} }), "consider it known"},
		"unset":             {with(func(n *Network) { n.Signers = []string{"{env.NO_SUCH_VARIABLE}"} }), "unset, empty or unreadable"},
		"empty":             {with(func(n *Network) { n.Signers = []string{"{env.EMPTY}"} }), "unset, empty or unreadable"},
		"no file":           {with(func(n *Network) { n.Signers = []string{"{file./no/such/file}"} }), "unset, empty or unreadable"},
		"short key":         {with(func(n *Network) { n.Signers = []string{keyFile(t, signerKey[:62])} }), "64 hexadecimal digits"},
		"long key":          {with(func(n *Network) { n.Signers = []string{keyFile(t, signerKey+"00")} }), "64 hexadecimal digits"},
		"mnemonic":          {with(func(n *Network) { n.Signers = []string{keyFile(t, "test test test junk")} }), "64 hexadecimal digits"},
		"zero key":          {with(func(n *Network) { n.Signers = []string{keyFile(t, strings.Repeat("0", 64))} }), "cannot be a private key"},
		"key beyond order":  {with(func(n *Network) { n.Signers = []string{keyFile(t, strings.Repeat("f", 64))} }), "cannot be a private key"},
		"URL in the clear":  {with(func(n *Network) { n.RPC = []string{"http://10.0.0.1/" + secret} }), "use https"},
		"URL from env":      {with(func(n *Network) { n.RPC = []string{"{env.NODE_URL}"} }), "use https"},
		"URL from no env":   {with(func(n *Network) { n.RPC = []string{"{env.NO_SUCH_VARIABLE}"} }), "unset, empty or unreadable"},
		"second URL is bad": {with(func(n *Network) { n.RPC = append(n.RPC, "nonsense") }), "rpc 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			f := &Facilitator{Networks: tt.networks}
			err := f.Provision(ctx)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), signerKey[:20]) || strings.Contains(err.Error(), secret)) {
				t.Errorf("the error holds a secret: %v", err)
			}
			// Cleanup follows a failed Provision too.
			if err := f.Cleanup(); err != nil {
				t.Error(err)
			}
			pool.Range(func(key, _ any) bool {
				t.Errorf("%v is still in the pool", key)
				return true
			})
		})
	}
}

// TestKeyNeverShows looks for the key in everything that can be printed.
func TestKeyNeverShows(t *testing.T) {
	k, err := resolveKey(keyFile(t, signerKey))
	if err != nil {
		t.Fatal(err)
	}
	if k.address.Hex() != signerAddress {
		t.Fatalf("address %s", k.address)
	}
	f, _ := start(t, baseSepolia, &Network{RPC: []string{"https://a.example"}}, nil)
	raw, _ := hex.DecodeString(signerKey)
	canaries := []string{signerKey, base64.StdEncoding.EncodeToString(raw), new(big.Int).SetBytes(raw).String(), signerKey[:16]}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
		for _, v := range []any{k, *f, f, f.chains[baseSepolia], map[string]any{"key": k}, []any{k}, struct{ K *privateKey }{k}} {
			checkHidden(t, fmt.Sprintf(verb, v), canaries)
		}
	}
	for _, v := range []any{k, f, map[string]any{"key": k}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		checkHidden(t, string(b), canaries)
	}
}

func checkHidden(t *testing.T, text string, canaries []string) {
	t.Helper()
	for _, c := range canaries {
		if strings.Contains(strings.ToLower(text), strings.ToLower(c)) {
			t.Errorf("the key shows: %.200s", text)
		}
	}
}

func TestSupported(t *testing.T) {
	clock := newClock(1e9)
	here, elsewhere := script(t, clock, world{}), script(t, clock, world{})
	elsewhere.chain = 5
	key := keyFile(t, signerKey)
	f, _ := start(t, baseSepolia, &Network{RPC: []string{here.URL}}, clock)
	other := &Facilitator{Networks: map[string]*Network{
		"base-sepolia": {RPC: []string{here.URL}, Signers: []string{key}},
		"base":         {RPC: []string{elsewhere.URL}, Signers: []string{key}},
		"polygon":      {RPC: []string{closedPort(t)}, Signers: []string{key}},
		"eip155:42161": {RPC: []string{closedPort(t), elsewhere.URL}, Signers: []string{key}},
	}, logger: f.logger, now: f.now, sleep: f.sleep, dial: f.dial}
	if err := other.provision(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Cleanup() }()
	s, err := other.Supported(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(s)
	// Base is left out, because its only node is on another chain.
	upto := func(id string) string {
		return `{"x402Version":2,"scheme":"upto","network":"eip155:` + id + `","extra":{"facilitatorAddress":"` + signerAddress + `"}},`
	}
	want := `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:137"},` + upto("137") + `{"x402Version":1,"scheme":"exact","network":"polygon"},` +
		`{"x402Version":2,"scheme":"exact","network":"eip155:42161"},` + upto("42161") +
		`{"x402Version":2,"scheme":"exact","network":"eip155:84532"},` + upto("84532") + `{"x402Version":1,"scheme":"exact","network":"base-sepolia"}],` +
		`"extensions":["eip2612GasSponsoring"],"signers":{"eip155:*":["` + signerAddress + `"]}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := x402.ParseSupported(got); err != nil {
		t.Error(err)
	}
}

// TestSupportedWithoutProxies: what a chain lacks is not offered, and what only
// the operator can pay for is offered if there is a budget.
func TestSupportedWithoutProxies(t *testing.T) {
	for name, tt := range map[string]struct {
		code       map[string]string
		budget     string
		upto       bool
		extensions string
	}{
		"both proxies": {upto: true, extensions: eip2612Extension},
		"with budget":  {budget: "0.01/day", upto: true, extensions: eip2612Extension + " " + approvalExtension},
		"only exact":   {code: map[string]string{strings.ToLower(x402.UptoPermit2Proxy): "0x"}, extensions: eip2612Extension},
		"none": {budget: "0.01/day", code: map[string]string{
			strings.ToLower(x402.UptoPermit2Proxy): "0x", strings.ToLower(x402.ExactPermit2Proxy): "0x",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock(1e9)
			node := script(t, clock, world{Code: tt.code})
			f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}, ApprovalBudget: tt.budget}, clock)
			s, err := f.Supported(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			upto := slices.ContainsFunc(s.Kinds, func(k x402.Kind) bool { return k.Scheme == "upto" })
			if upto != tt.upto || strings.Join(s.Extensions, " ") != tt.extensions {
				t.Errorf("upto %v, extensions %v", upto, s.Extensions)
			}
			// A node that fails takes nothing away.
			node.Close()
			if again := f.chains[baseSepolia].kinds(); len(again) != len(s.Kinds) {
				t.Errorf("%d kinds, then %d", len(s.Kinds), len(again))
			}
		})
	}
}

func TestUnprovisioned(t *testing.T) {
	r, _ := good(t)
	f := new(Facilitator)
	if _, err := f.Verify(context.Background(), r); err == nil {
		t.Error("verify: no error")
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unsent {
		t.Errorf("settle: %+v", s)
	}
	if _, err := f.Supported(context.Background()); err == nil {
		t.Error("supported: no error")
	}
	if err := f.Cleanup(); err != nil {
		t.Error(err)
	}
}

// TestNotOurs: what another facilitator may settle is no no.
func TestNotOurs(t *testing.T) {
	f, node, r, _ := at(t, world{})
	permit2 := r
	permit2.Requirement.Extra = []byte(`{"name":"USDC","version":"2","assetTransferMethod":"permit2"}`)
	elsewhere := r
	elsewhere.Requirement.Network = "eip155:1"
	nothing := r
	nothing.Payment = nil
	for name, r := range map[string]facilitator.Request{"another chain": elsewhere, "no payment": nothing} {
		if v, err := f.Verify(context.Background(), r); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
		if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unsent {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if v, err := f.Verify(context.Background(), permit2); err != nil || v.Reason != string(x402.CodeUnsupportedPayload) {
		t.Errorf("EIP-3009 where Permit2 was asked for: %+v, %v", v, err)
	}
	if node.total() != 0 {
		t.Error("the node was asked")
	}
}
