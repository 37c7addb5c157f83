package matcher

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// Caddy's query matcher reads a query as Go does, and `?p[]=1` is no p to it. To
// PHP it is, and to others are other things. So in the matchers of lines the query
// is read in every way: by whether some server could see a match, and whether
// every server does. What a line costs where the two differ is the price list's
// business; see pricing.Line.

type matchFunc = func(*http.Request) (bool, error)

// verdict is what a matcher says over all readings of a query.
type verdict struct{ some, every bool }

// readsQuery says whether a set has a query matcher, however deep.
func readsQuery(set caddyhttp.MatcherSet) bool {
	return slices.ContainsFunc(set, func(m any) bool {
		switch m := m.(type) {
		case *caddyhttp.MatchQuery:
			return true
		case *caddyhttp.MatchNot:
			return slices.ContainsFunc(m.MatcherSets, readsQuery)
		}
		return false
	})
}

// ReadsQueryOnly says whether all that some sets look at is the query: what they say
// is the same for everybody who asks for a URL.
func ReadsQueryOnly(sets caddyhttp.RawMatcherSets) bool {
	if len(sets) == 0 {
		return false
	}
	for _, set := range sets {
		for module, raw := range set {
			switch module {
			case "query":
				// A placeholder may stand for a header.
				if placeholderIn(raw) {
					return false
				}
			case "not":
				var nested caddyhttp.RawMatcherSets
				if json.Unmarshal(raw, &nested) != nil || !ReadsQueryOnly(nested) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// placeholderIn says whether a text of a matcher's config could hold a placeholder.
func placeholderIn(raw json.RawMessage) bool {
	var config any
	if json.Unmarshal(raw, &config) != nil {
		return true
	}
	return slices.ContainsFunc(textsIn(config), func(s string) bool { return strings.Contains(s, "{") })
}

// everyReading makes two matchers of sets: whether they match in some reading of
// the query, and whether in every one.
func everyReading(sets caddyhttp.MatcherSets) (some, every matchFunc) {
	some = func(r *http.Request) (bool, error) {
		v, err := judgeSets(r, sets)
		return v.some, err
	}
	every = func(r *http.Request) (bool, error) {
		v, err := judgeSets(r, sets)
		return v.every, err
	}
	return some, every
}

// judgeSets is for sets of which one has to match.
func judgeSets(r *http.Request, sets []caddyhttp.MatcherSet) (verdict, error) {
	var any verdict
	for _, set := range sets {
		all := verdict{some: true, every: true}
		for _, m := range set {
			v, err := judge(r, m)
			if err != nil {
				return verdict{}, err
			}
			all.some, all.every = all.some && v.some, all.every && v.every
			if !all.some {
				break
			}
		}
		any.some, any.every = any.some || all.some, any.every || all.every
	}
	return any, nil
}

func judge(r *http.Request, m any) (verdict, error) {
	switch m := m.(type) {
	case *caddyhttp.MatchQuery:
		return judgeQuery(r, *m), nil
	case *caddyhttp.MatchNot:
		v, err := judgeSets(r, m.MatcherSets)
		return verdict{some: !v.every, every: !v.some}, err
	}
	// A set takes matchers of the old kind too.
	matches, err := caddyhttp.MatcherSet{m}.MatchWithError(r)
	return verdict{matches, matches}, err
}

// judgeQuery asks every query that a request has: all keys have to be there.
func judgeQuery(r *http.Request, keys caddyhttp.MatchQuery) verdict {
	replacer, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	replace := func(s string) string {
		if replacer == nil || !strings.Contains(s, "{") {
			return s
		}
		return replacer.ReplaceAll(s, "")
	}
	joined := verdict{every: true}
	asked := request.QueriesOf(r)
	for i := range asked.Read {
		query := &asked.Read[i]
		v := verdict{some: true, every: true}
		if len(keys) == 0 {
			v.some, v.every = query.Empty()
		}
		for name, values := range keys {
			if asked.Looked > maxQueryWork {
				return verdict{some: true}
			}
			replaced := values
			if slices.ContainsFunc(values, func(s string) bool { return strings.Contains(s, "{") }) {
				replaced = make([]string, len(values))
				for j := range values {
					replaced[j] = replace(values[j])
				}
			}
			some, every, looked := query.Look(replace(name), replaced, maxQueryWork-asked.Looked)
			asked.Looked += looked
			v.some, v.every = v.some && some, v.every && every
		}
		joined.some = joined.some || v.some
		joined.every = joined.every && v.every
	}
	return joined
}

// maxQueryWork is how much of the queries of a request all matchers may look at
// together, in bytes: about three nanoseconds each. After that the rest of them
// could match.
const maxQueryWork = 24 << 10
