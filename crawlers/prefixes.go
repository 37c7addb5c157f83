package crawlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// prefixes are the networks of a list.
type prefixes struct {
	set     map[netip.Prefix]struct{}
	lengths [2][]int // that there are, of the fourth and the sixth version
}

// Bounds of a list. One that is for half of the internet is an error in it.
const (
	maxPrefixes = 50_000
	shortest4   = 8
	shortest6   = 19
	// most4 and most6 are how much of all addresses a list may be for.
	most4 = 1.0 / 16
	most6 = 1.0 / 4096
)

// parsePrefixes reads a list: the JSON that operators of crawlers publish
// (`prefixes[].ipv4Prefix` and `ipv6Prefix`), or a network or an address a line.
func parsePrefixes(content []byte) (*prefixes, error) {
	var texts []string
	if content = bytes.TrimSpace(content); bytes.HasPrefix(content, []byte("{")) {
		var list struct {
			Prefixes []struct {
				V4 string `json:"ipv4Prefix"`
				V6 string `json:"ipv6Prefix"`
			} `json:"prefixes"`
		}
		if err := json.Unmarshal(content, &list); err != nil {
			return nil, err
		}
		for _, p := range list.Prefixes {
			for _, text := range []string{p.V4, p.V6} {
				if text != "" {
					texts = append(texts, text)
				}
			}
		}
	} else {
		for line := range strings.Lines(string(content)) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				texts = append(texts, line)
			}
		}
	}
	if len(texts) == 0 {
		return nil, errors.New("no address ranges in it")
	}
	if len(texts) > maxPrefixes {
		return nil, fmt.Errorf("%d address ranges", len(texts))
	}
	var part [2]float64 //nolint:forbidigo // of addresses
	p := &prefixes{set: make(map[netip.Prefix]struct{}, len(texts))}
	for _, text := range texts {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		version := versionOf(prefix.Addr())
		if _, twice := p.set[prefix]; !twice {
			part[version] += math.Ldexp(1, -prefix.Bits())
		}
		if part[version] > [2]float64{most4, most6}[version] { //nolint:forbidigo // of addresses
			return nil, errors.New("it is for too much of the internet to be that of a crawler")
		}
		p.set[prefix] = struct{}{}
		if !slices.Contains(p.lengths[version], prefix.Bits()) {
			p.lengths[version] = append(p.lengths[version], prefix.Bits())
		}
	}
	return p, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.60q is no address range", text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() ||
		prefix.Bits() < [2]int{shortest4, shortest6}[versionOf(prefix.Addr())] {
		return netip.Prefix{}, fmt.Errorf("%.60q is no address range of a crawler", text)
	}
	return prefix.Masked(), nil
}

func versionOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// contains says whether an address is in one of the networks.
func (p *prefixes) contains(a netip.Addr) bool {
	if p == nil || !a.IsValid() {
		return false
	}
	for _, bits := range p.lengths[versionOf(a)] {
		prefix, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if _, ok := p.set[prefix]; ok {
			return true
		}
	}
	return false
}
