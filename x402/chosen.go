package x402

import (
	"errors"

	"github.com/go-json-experiment/json"
)

// Chosen returns the requirement that a version 2 payment says it meets. It is
// the payer's word: good for finding a payment that we know, never for deciding
// what is owed.
func (p *Payment) Chosen() (Requirement, error) {
	if p.Accepted == nil {
		return Requirement{}, errors.New("version 1 payments name no requirement")
	}
	var r Requirement
	if err := json.Unmarshal(p.Accepted, &r); err != nil {
		return Requirement{}, &Error{Code: CodeNoMatchingRequirements, Err: err}
	}
	return r, nil
}
