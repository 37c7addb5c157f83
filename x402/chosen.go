package x402

import "github.com/go-json-experiment/json"

// Chosen returns the requirement that a version 2 payment says it meets. It is
// the payer's word: good for finding a payment that we know, never for deciding
// what is owed. The error is a *Error; version 1 payments name no requirement.
func (p *Payment) Chosen() (Requirement, error) {
	var r Requirement
	if p.Accepted == nil {
		return r, refuse(CodeNoMatchingRequirements, "version 1 names no requirement")
	}
	if err := json.Unmarshal(p.Accepted, &r); err != nil {
		return Requirement{}, refuse(CodeNoMatchingRequirements, "accepted is no requirement")
	}
	return r, nil
}
