package x402

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// FacilitatorBody returns the body of POST /verify and POST /settle:
// {x402Version, paymentPayload, paymentRequirements}. The requirement is ours
// and res what was asked for. version is one that the facilitator supports for
// the requirement:
//
//   - V2 for a version 2 payment: the payer's object goes unchanged.
//   - V1 for a version 1 payment: the payer's object unchanged, and the
//     requirement in the words of version 1.
//   - V2 for a version 1 payment: translated. What is signed is the same in
//     both versions.
//
// A version 2 payment has no version 1 body.
func FacilitatorBody(p *Payment, r Requirement, res Resource, version int) ([]byte, error) {
	if !isObject(p.Raw) || !p.Raw.IsValid() {
		return nil, errors.New("payment was not decoded")
	}
	var requirement any = r
	raw := p.Raw
	switch {
	case p.Version == V2 && version == V2:
		// Some facilitators want what was accepted and what is required to be equal.
		if chosen, err := p.Chosen(); err == nil && len(chosen.Quote) <= maxQuote {
			r.Quote = chosen.Quote
			requirement = r
		}
	case p.Version == V1 && version == V1:
		name, _ := LegacyNetwork(r.Network)
		if name == "" {
			return nil, fmt.Errorf("network %q has no name in version 1", r.Network)
		}
		requirement = r.v1(name, res)
	case p.Version == V1 && version == V2:
		var err error
		if raw, err = translate(p, r, res); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("no version %d body for a version %d payment", version, p.Version)
	}
	ours, err := json.Marshal(requirement)
	if err != nil {
		return nil, fmt.Errorf("encoding requirement: %w", err)
	}
	// Not marshalled as one: that would spell the payer's strings anew.
	b := make([]byte, 0, len(raw)+len(ours)+80)
	b = append(b, `{"x402Version":`...)
	b = strconv.AppendInt(b, int64(version), 10)
	b = append(b, `,"paymentPayload":`...)
	b = append(b, raw...)
	b = append(b, `,"paymentRequirements":`...)
	b = append(b, ours...)
	return append(b, '}'), nil
}

// translate makes a version 2 payment of a version 1 payment.
func translate(p *Payment, r Requirement, res Resource) (jsontext.Value, error) {
	accepted, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding requirement: %w", err)
	}
	about, err := json.Marshal(res)
	if err != nil {
		return nil, fmt.Errorf("encoding resource: %w", err)
	}
	raw, err := json.Marshal(paymentV2{X402Version: V2, Payload: p.Payload, Resource: about, Accepted: accepted})
	if err != nil {
		return nil, fmt.Errorf("encoding payment: %w", err)
	}
	return raw, nil
}

// Bounds of a facilitator's answer to GET /supported.
const (
	maxSupportedBytes = 1 << 20
	maxSupportedKinds = 4096
)

// ParseSupported reads a facilitator's answer to GET /supported. kinds must be
// there; extensions and signers may be absent but not null, as for the official
// client. A kind that has no version, scheme or network is of no use and left
// out, whatever else it is; versions and members that we do not know are not
// an error.
func ParseSupported(b []byte) (Supported, error) {
	if len(b) > maxSupportedBytes {
		return Supported{}, errors.New("supported: answer too long")
	}
	if err := bounded(b, maxReceiptDepth); err != nil {
		return Supported{}, fmt.Errorf("supported: %w", err)
	}
	var w struct {
		Kinds      *[]jsontext.Value `json:"kinds"`
		Extensions jsontext.Value    `json:"extensions"`
		Signers    jsontext.Value    `json:"signers"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Supported{}, fmt.Errorf("supported: %w", err)
	}
	if w.Kinds == nil {
		return Supported{}, errors.New("supported: kinds missing")
	}
	if len(*w.Kinds) > maxSupportedKinds {
		return Supported{}, errors.New("supported: too many kinds")
	}
	s := Supported{Kinds: []Kind{}, Extensions: []string{}, Signers: map[string][]string{}}
	for _, raw := range *w.Kinds {
		var k Kind
		if json.Unmarshal(raw, &k) != nil || k.X402Version == 0 || k.Scheme == "" || k.Network == "" {
			continue
		}
		if k.Extra = notNull(k.Extra); k.Extra != nil && !isObject(k.Extra) {
			continue
		}
		s.Kinds = append(s.Kinds, k)
	}
	if err := unmarshalPresent(w.Extensions, &s.Extensions); err != nil {
		return Supported{}, fmt.Errorf("supported: extensions: %w", err)
	}
	if err := unmarshalPresent(w.Signers, &s.Signers); err != nil {
		return Supported{}, fmt.Errorf("supported: signers: %w", err)
	}
	return s, nil
}

// unmarshalPresent reads v into dst unless it is absent; null is an error.
func unmarshalPresent(v jsontext.Value, dst any) error {
	switch v.Kind() {
	case jsontext.KindInvalid:
		return nil
	case jsontext.KindNull:
		return errors.New("is null")
	default:
		return json.Unmarshal(v, dst)
	}
}
