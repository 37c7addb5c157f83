package x402

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// requirements reads a list as a server would configure it.
func requirements(t testing.TB, raws []jsontext.Value) []Requirement {
	t.Helper()
	list := make([]Requirement, len(raws))
	for i, raw := range raws {
		if err := json.Unmarshal(raw, &list[i]); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// TestMatchVectors compares with the official server, row by row. The rows
// where we differ say why.
func TestMatchVectors(t *testing.T) {
	differs := map[string]string{
		"server extra {}, client without": "better: Go and Rust clients leave out an empty object",
		"server extra {}, client null":    "better: null is absent",
	}
	file := load[struct {
		Rows []struct {
			Name     string
			Server   []jsontext.Value
			Accepted jsontext.Value
			Matches  any
		} `json:"acceptedAgainstRequirements"`
	}](t, "matching.json")
	if len(file.Rows) < 26 {
		t.Fatalf("%d rows", len(file.Rows))
	}
	for _, row := range file.Rows {
		t.Run(row.Name, func(t *testing.T) {
			if s, ok := row.Matches.(string); ok { // "error: Unsupported x402 version: 3"
				version, _ := strings.CutPrefix(row.Name, "x402Version ")
				_, err := decodeV2JSON(`{"x402Version":` + version + `,"accepted":` + string(row.Accepted) + `,"payload":{}}`)
				if got := code(t, err); got != CodeUnsupportedVersion {
					t.Errorf("code %q, official %s", got, s)
				}
				return
			}
			p, err := decodeV2JSON(`{"x402Version":2,"accepted":` + string(row.Accepted) + `,"payload":{}}`)
			if err != nil {
				t.Fatal(err)
			}
			i, err := Match(p, requirements(t, row.Server))
			if c := code(t, err); c != "" && c != CodeNoMatchingRequirements {
				t.Errorf("code %q", c)
			}
			_, known := differs[row.Name]
			if (err == nil) != (row.Matches == true) != known {
				t.Fatalf("matches: %v, official: %v, difference named: %v", err == nil, row.Matches, known)
			}
			if row.Name == "second option matches" && i != 1 {
				t.Errorf("index %d", i)
			}
		})
	}
}

// TestMatchOurRows are cases that the official table does not have.
func TestMatchOurRows(t *testing.T) {
	with := func(extra string) Requirement {
		r := usdc()
		r.Extra = jsontext.Value(extra)
		return r
	}
	solana := func(scheme, extra string) Requirement {
		r := with(extra)
		r.Scheme, r.Network = scheme, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
		return r
	}
	marshal := func(r Requirement) string {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	base := marshal(usdc())
	edit := func(old, repl string) string {
		if !strings.Contains(base, old) {
			t.Fatalf("%s not in %s", old, base)
		}
		return strings.Replace(base, old, repl, 1)
	}
	for name, c := range map[string]struct {
		ours     Requirement
		accepted string
		want     bool
	}{
		"verbatim":                       {usdc(), base, true},
		"white space":                    {usdc(), strings.ReplaceAll(base, ",", " ,\n "), true},
		"escaped string":                 {usdc(), edit(`"exact"`, `"\u0065xact"`), true},
		"maxTimeoutSeconds 300.0":        {usdc(), edit(`:300`, `:300.0`), true},
		"maxTimeoutSeconds 3e2":          {usdc(), edit(`:300`, `:3e2`), true},
		"maxTimeoutSeconds 300.1":        {usdc(), edit(`:300`, `:300.1`), false},
		"maxTimeoutSeconds 1e400":        {usdc(), edit(`:300`, `:1e400`), false},
		"maxTimeoutSeconds missing":      {usdc(), edit(`"maxTimeoutSeconds":300,`, ``), false},
		"amount null":                    {usdc(), edit(`"10000"`, `null`), false},
		"amount missing":                 {usdc(), edit(`"amount":"10000",`, ``), false},
		"amount with NUL":                {usdc(), edit(`"10000"`, `"10000\u0000"`), false},
		"another amount":                 {usdc(), edit(`"10000"`, `"1"`), false},
		"another payTo":                  {usdc(), edit(`0x2096`, `0x3096`), false},
		"unknown member null":            {usdc(), edit(`{`, `{"outputSchema":null,`), true},
		"unknown member":                 {usdc(), edit(`{`, `{"outputSchema":{},`), false},
		"extra with null member":         {with(`{"a":null}`), marshal(with(`{"a":null}`)), true},
		"extra lacks null member":        {with(`{"a":null}`), marshal(with(`{}`)), false},
		"extra a list":                   {with(`{}`), edit(`{"name":"USDC","version":"2"}`, `[]`), false},
		"extra a string":                 {with(``), edit(`{"name":"USDC","version":"2"}`, `"x"`), false},
		"extra a list, ours unset":       {with(``), edit(`{"name":"USDC","version":"2"}`, `[1]`), false},
		"object in list has more":        {with(`{"l":[{"a":1}]}`), marshal(with(`{"l":[{"a":1,"b":2}]}`)), false},
		"object in list, other order":    {with(`{"l":[{"a":1,"b":2}]}`), marshal(with(`{"l":[{"b":2,"a":1.0}]}`)), true},
		"scalar where we have an object": {with(`{"o":{}}`), marshal(with(`{"o":1}`)), false},
		"Solana block hash changed": {
			solana("exact", `{"feePayer":"F","recentBlockhash":"a","lastValidBlockHeight":"1"}`),
			marshal(solana("exact", `{"feePayer":"F","recentBlockhash":"b","lastValidBlockHeight":"2"}`)), true,
		},
		"Solana block hash left out": {
			solana("exact", `{"feePayer":"F","recentBlockhash":"a"}`),
			marshal(solana("exact", `{"feePayer":"F"}`)), true,
		},
		"Solana fee payer changed": {
			solana("exact", `{"feePayer":"F","recentBlockhash":"a"}`),
			marshal(solana("exact", `{"feePayer":"G","recentBlockhash":"a"}`)), false,
		},
		"Solana upto slot changed":  {solana("upto", `{"recentSlot":1}`), marshal(solana("upto", `{"recentSlot":2}`)), true},
		"Solana exact slot changed": {solana("exact", `{"recentSlot":1}`), marshal(solana("exact", `{"recentSlot":2}`)), false},
		"EVM block hash changed":    {with(`{"recentBlockhash":"a"}`), marshal(with(`{"recentBlockhash":"b"}`)), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Match(&Payment{Version: V2, Accepted: jsontext.Value(c.accepted)}, []Requirement{c.ours})
			if (err == nil) != c.want {
				t.Errorf("matches: %v, want %v: %s", err == nil, c.want, c.accepted)
			}
		})
	}
}

func TestMatchV1(t *testing.T) {
	v := payerVectors(t, "exact-evm-v1")[0]
	p, err := Decode(header(HeaderXPayment, v.HeaderV1))
	if err != nil {
		t.Fatal(err)
	}
	mod := func(f func(*Requirement)) Requirement { r := usdc(); f(&r); return r }
	dear := mod(func(r *Requirement) { r.Amount = "20000" })
	other := mod(func(r *Requirement) { r.PayTo = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" })
	lower := mod(func(r *Requirement) { r.PayTo = strings.ToLower(r.PayTo) })
	mainnet := mod(func(r *Requirement) { r.Network = "eip155:8453" })
	upto := mod(func(r *Requirement) { r.Scheme = "upto" })
	permit2 := mod(func(r *Requirement) { r.Extra = jsontext.Value(`{"assetTransferMethod":"permit2"}`) })
	for name, c := range map[string]struct {
		offer []Requirement
		want  int
	}{
		"the only one":                  {[]Requirement{usdc()}, 0},
		"nothing offered":               {nil, -1},
		"another network":               {[]Requirement{mainnet}, -1},
		"another scheme":                {[]Requirement{upto}, -1},
		"not payable in version 1":      {[]Requirement{permit2}, -1},
		"the one that was signed":       {[]Requirement{mainnet, dear, other, permit2, usdc()}, 4},
		"payTo spelled otherwise":       {[]Requirement{dear, lower}, 1},
		"the first of two that fit":     {[]Requirement{dear, usdc(), usdc()}, 1},
		"the first when none was meant": {[]Requirement{mainnet, dear, other}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := Match(p, c.offer)
			if i != c.want || code(t, err) != map[bool]Code{true: CodeNoMatchingRequirements}[c.want < 0] {
				t.Errorf("index %d, %v", i, err)
			}
		})
	}
}

// TestCheckExtensionsVectors compares with the official server.
func TestCheckExtensionsVectors(t *testing.T) {
	file := load[struct {
		Rows []struct {
			Name           string
			Server, Client jsontext.Value
			Result         struct{ Valid bool }
		} `json:"extensionEcho"`
	}](t, "matching.json")
	if len(file.Rows) < 14 {
		t.Fatalf("%d rows", len(file.Rows))
	}
	for _, row := range file.Rows {
		t.Run(row.Name, func(t *testing.T) {
			err := CheckExtensions(row.Server, row.Client)
			if (err == nil) != row.Result.Valid {
				t.Errorf("got %v, official valid: %v", err, row.Result.Valid)
			}
			if c := code(t, err); c != "" && c != CodeExtensionEchoMismatch {
				t.Errorf("code %q", c)
			}
		})
	}
}

func TestCheckExtensionsOurRows(t *testing.T) {
	const id = `{"payment-identifier":{"info":{"required":true},"schema":{}}}`
	for name, c := range map[string]struct {
		ours, echo string
		want       bool
	}{
		"nothing on either side":      {"", "", true},
		"echo null":                   {id, `null`, true},
		"echo of one null":            {id, `{"payment-identifier":null}`, true},
		"echo a list":                 {id, `[]`, false},
		"extension a string":          {id, `{"payment-identifier":"x"}`, false},
		"undeclared a string":         {id, `{"other":"x"}`, true},
		"info a list":                 {id, `{"payment-identifier":{"info":[]}}`, false},
		"no info":                     {id, `{"payment-identifier":{}}`, false},
		"we declared no info":         {`{"a":{"schema":{}}}`, `{"a":{}}`, true},
		"builder s no list":           {"", `{"builder-code":{"info":{"s":"x"}}}`, false},
		"builder s of 10":             {"", `{"builder-code":{"info":{"s":[1,2,3,4,5,6,7,8,9,10]}}}`, true},
		"builder s of 11":             {"", `{"builder-code":{"info":{"s":[1,2,3,4,5,6,7,8,9,10,11]}}}`, false},
		"builder a dropped":           {`{"builder-code":{"info":{"a":"x"}}}`, `{"builder-code":{"info":{"s":[]}}}`, false},
		"offers differ":               {`{"offer-receipt":{"info":{"offers":[1]}}}`, `{"offer-receipt":{"info":{"offers":[2]}}}`, true},
		"our declaration is unusable": {`{"a":1}`, `{"a":{}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckExtensions(jsontext.Value(c.ours), jsontext.Value(c.echo)); (err == nil) != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}
