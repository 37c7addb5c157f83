package x402

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// requirementV1 is a PaymentRequirements object of version 1. Resource is the
// last member because it depends on the request.
type requirementV1 struct {
	Scheme            string         `json:"scheme"`
	Network           string         `json:"network"`
	MaxAmountRequired string         `json:"maxAmountRequired"`
	Description       string         `json:"description"`
	MimeType          string         `json:"mimeType"`
	PayTo             string         `json:"payTo"`
	MaxTimeoutSeconds int            `json:"maxTimeoutSeconds"`
	Asset             string         `json:"asset"`
	Extra             jsontext.Value `json:"extra"`
	Resource          string         `json:"resource"`
}

// v1 translates a requirement.
func (r Requirement) v1(network string, res Resource) requirementV1 {
	return requirementV1{
		Scheme: r.Scheme, Network: network, MaxAmountRequired: r.Amount,
		Description: res.Description, MimeType: res.MimeType, Resource: res.URL,
		PayTo: r.PayTo, MaxTimeoutSeconds: r.MaxTimeoutSeconds, Asset: r.Asset, Extra: r.extra(),
	}
}

// v1Entries encodes the requirements that the official version 1 client can
// parse, each up to the value of its resource. That client refuses a whole
// challenge for one entry that it does not understand.
//
// Of requirements that differ in the asset alone only the first is listed: a
// version 1 payment does not say which asset it is in, so that we could not
// tell afterwards which one was chosen.
func v1Entries(accepts []Requirement, description, mimeType string) ([]string, error) {
	res := Resource{Description: description, MimeType: mimeType}
	type signed struct{ network, payTo, amount string }
	seen := make(map[signed]bool)
	var entries []string
	for _, r := range accepts {
		network, strict := LegacyNetwork(r.Network)
		key := signed{network, strings.ToLower(r.PayTo), r.Amount}
		if !strict || !inV1(r) || !wellFormedV1(r) || seen[key] {
			continue
		}
		seen[key] = true
		b, err := json.Marshal(r.v1(network, res))
		if err != nil {
			return nil, fmt.Errorf("version 1 requirement: %w", err)
		}
		entries = append(entries, strings.TrimSuffix(string(b), `""}`))
	}
	return entries, nil
}

// wellFormedV1 checks what the version 1 schema checks of amount and accounts.
func wellFormedV1(r Requirement) bool {
	if _, ok := parseUint(r.Amount); !ok {
		return false
	}
	if strings.HasPrefix(r.Network, "eip155:") {
		_, ok := parseAddress(r.PayTo)
		_, ok2 := parseAddress(r.Asset)
		return ok && ok2
	}
	return isBase58Account(r.PayTo) && isBase58Account(r.Asset)
}

// isBase58Account reports whether s looks like a Solana account.
func isBase58Account(s string) bool {
	if len(s) < 32 || len(s) > 44 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '1' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') || c == 'I' || c == 'O' || c == 'l' {
			return false
		}
	}
	return true
}
