// Package crawlers knows who asks: crawlers and agents by what they call themselves, and
// how far that can be believed.
package crawlers

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Kind is what a client gathers for. The kinds are ours; the operators of crawlers have
// no common words.
type Kind string

// The kinds.
const (
	Train     Kind = "train"     // gathers for models
	Search    Kind = "search"    // builds an index that sends people
	Assistant Kind = "assistant" // fetches because a person asked just now
	Agent     Kind = "agent"     // acts for a person, or writes code
	Data      Kind = "data"      // gathers to sell, or for unclear ends
	SEO       Kind = "seo"       // counts links for marketing
	Preview   Kind = "preview"   // makes link cards
	Archive   Kind = "archive"   // keeps what the web was
	Monitor   Kind = "monitor"   // looks whether a site is up, or reads feeds
	Tool      Kind = "tool"      // libraries and headless browsers
)

var kinds = []Kind{Train, Search, Assistant, Agent, Data, SEO, Preview, Archive, Monitor, Tool}

// Kinds are all kinds, in the order of the table.
func Kinds() []Kind { return slices.Clone(kinds) }

// IsCrawler says whether a kind is one of crawlers and agents. Monitors are asked for by
// the site's own operator, and a tool can be anybody's.
func (k Kind) IsCrawler() bool { return k != Monitor && k != Tool }

// Crawler is a row of the table: what a client calls itself, and how it can be known that
// it is the one.
type Crawler struct {
	// What stands in the User-Agent, as a word, letter case ignored.
	Token    string `json:"token"`
	Kind     Kind   `json:"kind"`
	Operator string `json:"operator,omitempty"`

	// The domains of its hosts, for forward-confirmed reverse DNS.
	RDNS []string `json:"rdns,omitempty"`
	// Where its addresses are published: https URLs, or files of the operator of this site.
	Ranges []string `json:"ranges,omitempty"`
	// The domains of its key directories, for Web Bot Auth.
	Directories []string `json:"directories,omitempty"`
}

// CanBeVerified says whether there is a way to know that a client is this one.
func (c *Crawler) CanBeVerified() bool {
	return len(c.RDNS)+len(c.Ranges)+len(c.Directories) > 0
}

// Table finds crawlers by their User-Agent. It does not change.
type Table struct {
	// Date is the day on which the facts were gathered.
	Date string

	agents    []*Crawler
	words     map[string][]entry  // by the first word of the token, in small letters
	byName    map[string]*Crawler // by the token in small letters
	directory map[string]*Crawler // the first one that names it
}

type entry struct {
	token   string // in small letters
	crawler *Crawler
}

//go:embed table.json
var embedded []byte

// Facts are the rows that come with the paywall, and the day on which they were gathered.
func Facts() (date string, agents []Crawler, err error) {
	var file struct {
		Date   string    `json:"date"`
		Agents []Crawler `json:"agents"`
	}
	if err := json.Unmarshal(embedded, &file); err != nil {
		return "", nil, fmt.Errorf("reading the table of crawlers: %w", err)
	}
	return file.Date, file.Agents, nil
}

// NewTable makes a table of rows. It refuses what cannot be meant.
func NewTable(date string, agents []Crawler) (*Table, error) {
	t := &Table{Date: date, words: map[string][]entry{}, byName: map[string]*Crawler{}, directory: map[string]*Crawler{}}
	for i := range agents {
		c := agents[i]
		if err := c.check(); err != nil {
			return nil, err
		}
		lower := strings.ToLower(c.Token)
		if t.byName[lower] != nil {
			return nil, fmt.Errorf("agent %s: listed twice", c.Token)
		}
		t.byName[lower] = &c
		t.agents = append(t.agents, &c)
		for _, d := range c.Directories {
			if t.directory[d] == nil {
				t.directory[d] = &c
			}
		}
		word := lower[:wordEnd(lower, 0)]
		t.words[word] = append(t.words[word], entry{lower, &c})
	}
	for _, entries := range t.words {
		slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(len(b.token), len(a.token)) })
	}
	return t, nil
}

// maxToken is how long a token may be.
const maxToken = 100

// check refuses rows that cannot be meant.
func (c *Crawler) check() error {
	if c.Token == "" || len(c.Token) > maxToken || !isWordByte(c.Token[0]) {
		return fmt.Errorf("agent %q: want the word that it calls itself in the User-Agent, such as ExampleBot", c.Token)
	}
	for i := range len(c.Token) {
		if c.Token[i] < ' ' || c.Token[i] > '~' {
			return fmt.Errorf("agent %q: no User-Agent has such letters", c.Token)
		}
	}
	if slices.Contains(kinds, Kind(strings.ToLower(c.Token))) {
		return fmt.Errorf("agent %s: that is a kind, and cannot be a name", c.Token)
	}
	if !slices.Contains(kinds, c.Kind) {
		return fmt.Errorf("agent %s: there is no kind %q; there are: %s", c.Token, c.Kind, KindList())
	}
	for _, d := range slices.Concat(c.RDNS, c.Directories) {
		if !isDomain(d) {
			return fmt.Errorf("agent %s: %q is no domain, such as bots.example", c.Token, d)
		}
	}
	for _, source := range c.Ranges {
		if !strings.Contains(source, "://") {
			continue // a file
		}
		if u, err := url.Parse(source); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			return fmt.Errorf("agent %s: ranges come from a file or an https URL, not from %q", c.Token, source)
		}
	}
	return nil
}

// KindList are all kinds, for messages.
func KindList() string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// isDomain says whether a text is a name of more than one label, in small letters.
func isDomain(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	digits := true // alone: an address
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', c == '-':
				digits = false
			case '0' <= c && c <= '9':
			default:
				return false
			}
		}
	}
	return !digits
}

// Agents are the rows.
func (t *Table) Agents() []*Crawler { return slices.Clone(t.agents) }

// Named finds a row by its token, letter case ignored.
func (t *Table) Named(name string) (*Crawler, bool) {
	c, ok := t.byName[strings.ToLower(name)]
	return c, ok
}

// WithDirectory finds the row whose key directory is at a domain.
func (t *Table) WithDirectory(domain string) (*Crawler, bool) {
	c, ok := t.directory[domain]
	return c, ok
}

// maxUserAgent is how much of a User-Agent is read. Those of clients that wish to be known
// are far shorter.
const maxUserAgent = 512

// Find finds the row that a User-Agent names, or nil: of all tokens that stand in it as
// words the longest one, but a tool only where there is no other, since a crawler may say
// what it is built from.
func (t *Table) Find(userAgent string) *Crawler {
	if len(userAgent) > maxUserAgent {
		userAgent = userAgent[:maxUserAgent]
	}
	var buffer [maxUserAgent]byte
	lower := buffer[:len(userAgent)]
	for i := range len(userAgent) {
		c := userAgent[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	var best *Crawler
	for i := 0; i < len(lower); {
		if !isWordByte(lower[i]) {
			i++
			continue
		}
		end := wordEnd(lower, i)
		for _, e := range t.words[string(lower[i:end])] { // which allocates nothing
			if !standsAt(lower, i, e.token) {
				continue
			}
			if best == nil || (best.Kind == Tool) != (e.crawler.Kind == Tool) && best.Kind == Tool ||
				(best.Kind == Tool) == (e.crawler.Kind == Tool) && len(e.token) > len(best.Token) {
				best = e.crawler
			}
			break // the others are shorter
		}
		i = end
	}
	return best
}

// standsAt says whether a token stands at a place, and ends there.
func standsAt(text []byte, at int, token string) bool {
	end := at + len(token)
	return end <= len(text) && string(text[at:end]) == token &&
		(end == len(text) || !isWordByte(text[end-1]) || !isWordByte(text[end]))
}

// isWordByte says whether a byte belongs to a word. `GPTBot` does not stand in `NotGPTBot`,
// but `Googlebot` in `Googlebot-Video`, which is its operator's.
func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// wordEnd is where the word that begins at a place ends.
func wordEnd[T string | []byte](text T, at int) int {
	for at < len(text) && isWordByte(text[at]) {
		at++
	}
	return at
}
