// Package botauth verifies the signatures by which crawlers and agents say who they are
// (Web Bot Auth, draft-ietf-webbotauth-httpsig-protocol-00): HTTP message signatures of
// RFC 9421 with Ed25519, whose keys stand in a directory at the agent's domain.
package botauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// Message is what a request says, as its client has sent it.
type Message struct {
	Method string
	Scheme string // http or https
	Host   string // with its port, if one was said
	Target string // path and query, as they stood in the request line
	Header http.Header
}

// errComponent is for what we cannot know to be as the client has signed it.
var errComponent = errors.New("a covered component that is not supported")

// component is the value of what a signature covers, as RFC 9421 has it in section 2.
func (m *Message) component(item httpsfv.Item) (string, error) {
	name, ok := item.Value.(string)
	if !ok || name == "" {
		return "", errComponent
	}
	names := item.Params.Names()
	if name == "@query-param" {
		if len(names) != 1 || names[0] != "name" {
			return "", errComponent
		}
		wanted, _ := item.Params.Get("name")
		return m.queryParam(wanted)
	}
	if strings.HasPrefix(name, "@") && len(names) > 0 {
		return "", errComponent
	}
	path, query, asked := strings.Cut(m.Target, "?")
	switch name {
	case "@method":
		return m.Method, nil
	case "@authority":
		return m.authority(), nil
	case "@scheme":
		return m.Scheme, nil
	case "@request-target":
		return m.Target, nil
	case "@path":
		if path == "" {
			path = "/"
		}
		return path, nil
	case "@query":
		return "?" + query, nil
	case "@target-uri":
		uri := m.Scheme + "://" + m.authority() + path
		if asked {
			uri += "?" + query
		}
		return uri, nil
	}
	if strings.HasPrefix(name, "@") || name != strings.ToLower(name) {
		return "", errComponent
	}
	values := m.Header.Values(name)
	if len(values) == 0 {
		return "", fmt.Errorf("%s is covered, and not there", name)
	}
	switch {
	case len(names) == 0:
		trimmed := make([]string, len(values))
		for i := range values {
			trimmed[i] = strings.TrimSpace(values[i])
		}
		return strings.Join(trimmed, ", "), nil
	case slices.Equal(names, []string{"key"}):
		return member(values, item)
	}
	return "", errComponent
}

// member is the value of one member of a header that is a dictionary.
func member(values []string, item httpsfv.Item) (string, error) {
	size := 0
	for _, value := range values {
		size += len(value)
	}
	if size > maxMembers {
		return "", errComponent
	}
	dictionary, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return "", err
	}
	wanted, _ := item.Params.Get("key")
	key, _ := wanted.(string)
	m, ok := dictionary.Get(key)
	if !ok {
		return "", fmt.Errorf("member %q is covered, and not there", key)
	}
	return httpsfv.Marshal(asListed(m))
}

// asListed is a member as a structured field of its own.
func asListed(m httpsfv.Member) httpsfv.StructuredFieldValue {
	if item, ok := m.(httpsfv.Item); ok {
		return item
	}
	return httpsfv.List{m}
}

// authority is the host in small letters, without the port that its scheme has anyway.
func (m *Message) authority() string {
	host := strings.ToLower(m.Host)
	if port := map[string]string{"http": ":80", "https": ":443"}[m.Scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	return host
}

// queryParam is one parameter of the query, which must be there once.
func (m *Message) queryParam(wanted any) (string, error) {
	name, ok := wanted.(string)
	_, query, _ := strings.Cut(m.Target, "?")
	values, err := url.ParseQuery(query)
	if !ok || err != nil {
		return "", errComponent
	}
	name, err = url.QueryUnescape(name)
	if err != nil || len(values[name]) != 1 {
		return "", errComponent
	}
	return strings.NewReplacer("+", "%20", "~", "%7E", "%2A", "*").Replace(url.QueryEscape(values[name][0])), nil
}
