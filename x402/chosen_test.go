package x402

import "testing"

func TestChosen(t *testing.T) {
	for name, tc := range map[string]struct {
		accepted string
		amount   string
		ok       bool
	}{
		"whole":       {`{"scheme":"exact","network":"eip155:1","amount":"5","asset":"a","payTo":"b","maxTimeoutSeconds":300,"more":1}`, "5", true},
		"a number":    {`{"scheme":"exact","network":"eip155:1","amount":5}`, "", false},
		"not there":   {``, "", false},
		"not objects": {`[]`, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Payment{}
			if tc.accepted != "" {
				p.Accepted = []byte(tc.accepted)
			}
			r, err := p.Chosen()
			if (err == nil) != tc.ok || r.Amount != tc.amount {
				t.Fatalf("%+v %v", r, err)
			}
		})
	}
}
