package routes

import (
	"path/filepath"
	"slices"
	"strings"
)

// fileServer is what matters to us of a file_server.
type fileServer struct {
	// Index are the names of files that are served for their folder.
	Index []string `json:"index_names"`
	Hide  []string
	// Precompressed are the encodings for which it looks for a compressed file
	// beside a file; Order may be all that is known of them.
	Precompressed map[string]any
	Order         []string `json:"precompressed_order"`
}

// readFileServer reads the handler.
func readFileServer(h *handler) fileServer {
	files := fileServer{Index: []string{"index.html", "index.txt"}} // Caddy's default
	h.read(&files)
	return files
}

// suffixes are the ends of the names of compressed files.
func (f fileServer) suffixes() []string {
	var suffixes []string
	for _, encoding := range f.Order {
		suffixes = append(suffixes, suffixOf(encoding))
	}
	for encoding := range f.Precompressed {
		suffixes = append(suffixes, suffixOf(encoding))
	}
	slices.Sort(suffixes)
	return slices.Compact(suffixes)
}

func suffixOf(encoding string) string {
	switch encoding {
	case "gzip":
		return ".gz"
	case "zstd":
		return ".zst"
	default: // "br", and what others call theirs
		return "." + encoding
	}
}

// hides reports whether a file is never served, as Caddy decides it: a pattern
// without a slash is for any part of the path, one with a slash for a whole path
// or all below it.
func (f fileServer) hides(file string) bool {
	return slices.ContainsFunc(f.Hide, func(h string) bool {
		if !strings.Contains(h, "/") {
			return slices.ContainsFunc(strings.Split(file, "/"), func(part string) bool {
				hidden, _ := filepath.Match(h, part)
				return hidden
			})
		}
		below, ok := strings.CutPrefix(file, h)
		hidden, _ := filepath.Match(h, file)
		return hidden || ok && strings.HasPrefix(below, "/")
	})
}
