package x402

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// memberQuote is where a requirement's quote stands in its extra: version 2 clients send
// back what they accept as it was, and no client looks at members that it does not know.
const memberQuote = "quote"

// maxQuote is how long a quote is, in bytes, that is told to a facilitator.
const maxQuote = 64

// withQuote adds a quote to an extra that has none of its own.
func withQuote(extra jsontext.Value, quote string) jsontext.Value {
	members := map[string]jsontext.Value{}
	value, err := json.Marshal(quote)
	if err != nil || json.Unmarshal(extra, &members) != nil || members[memberQuote] != nil {
		return extra
	}
	members[memberQuote] = value
	return extraOf(members, extra)
}

// splitQuote takes the quote out of an extra; "" if there is none.
func splitQuote(extra jsontext.Value) (rest jsontext.Value, quote string) {
	members := map[string]jsontext.Value{}
	if len(extra) == 0 || json.Unmarshal(extra, &members) != nil {
		return extra, ""
	}
	quote, ok := text(members[memberQuote])
	if !ok {
		return extra, ""
	}
	delete(members, memberQuote)
	return extraOf(members, extra), quote
}

func extraOf(members map[string]jsontext.Value, otherwise jsontext.Value) jsontext.Value {
	raw, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return otherwise
	}
	return raw
}
