package pricing

import (
	"iter"
	"slices"
	"strings"
)

// completions are the endings that servers add to a name, where they have no file of that
// name: `serve`, `http-server`, nginx with `try_files $uri $uri.html`. Apache with
// MultiViews adds any ending that it knows; but `/paper` beside `/paper.pdf` is often a
// page about the paper, which is free.
var completions = [...]string{".html", ".htm", ".php"}

// maxFile is how long the path of a file may be to an operating system, in bytes.
const maxFile = 4 << 10

// endings is a set of completions.
type endings uint8

// noteEndings notes the endings that make a name one of the entry's.
func (x *index) noteEndings(e *entry) {
	head, below := strings.CutSuffix(e.pattern.head, "/")
	for i, ending := range completions {
		bit := endings(1) << i
		switch e.pattern.shape {
		case shapeGlob:
			if e.pattern.glob.takesEnding(ending) {
				x.ended |= bit
				if e.rank.class == rankHead {
					x.endedBelow |= bit
				}
			}
		case shapePrefix:
			for n := 1; n < len(ending) && !below; n++ { // `/quote.*`, `/quote.htm*`
				x.noteBare(head, ending[:n], bit)
			}
			x.noteBare(head, ending, bit)
		case shapeExact:
			x.noteBare(head, ending, bit)
		default:
		}
	}
}

// noteBare notes the path without the ending, if it has that.
func (x *index) noteBare(path, ending string, bit endings) {
	if bare, ok := strings.CutSuffix(path, ending); ok && bare != "" && bare[len(bare)-1] != '/' {
		x.bare[bare] |= bit
	}
}

// completions finds the endings with which a folded path may be one that a line is for.
// `/articles/` is as good as `/articles` to a server that completes it, though not to
// `*.html`, which would price every folder. A name that has an ending is completed too,
// but only for who names the result or where the ending is a number, such as `go-1.22`:
// else each `/style.css` would cost what `*.html` does.
func (x *index) completions(path string) endings {
	bare := trimSlash(path)
	if len(bare) > maxFile {
		return 0
	}
	which := x.bare[bare]
	if name := bare[strings.LastIndexByte(bare, '/')+1:]; name == "" || hasEnding(name) {
		return which
	}
	if len(bare) != len(path) {
		return which | x.endedBelow
	}
	return which | x.ended
}

// files yields the folded path of a page, and with each ending with which it may be one
// that a line is for. An empty path has none.
func (x *index) files(page string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if page == "" || !yield(x.asFolder(page)) {
			return
		}
		for i, which := 0, x.completions(page); which != 0; i, which = i+1, which>>1 {
			if which&1 != 0 && !yield(trimSlash(page)+completions[i]) {
				return
			}
		}
	}
}

// asFolder is the path of a page as that of a folder, if there are globs for folders: every
// line for the one is for the other too.
func (x *index) asFolder(page string) string {
	if !x.folderGlobs || strings.HasSuffix(page, "/") {
		return page
	}
	return page + "/"
}

// hasEnding says whether a name has an ending that says of what kind it is.
func hasEnding(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	return dot > 0 && strings.Trim(name[dot+1:], "0123456789") != ""
}

// isAsset says whether a folded path has the ending of what pages are made with.
func isAsset(path string) bool {
	path = trimSlash(path)
	switch path[strings.LastIndexByte(path, '.')+1:] {
	case "css", "js", "mjs", "map", "wasm", "woff", "woff2", "ttf", "otf", "eot",
		"png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico", "bmp", "mp3", "mp4", "m4a", "ogg", "wav", "webm":
		return true
	}
	return false
}

// takesEnding reports whether a name may become one of the glob's by an ending. It may say
// yes where none does.
func (g *glob) takesEnding(ending string) bool {
	if g.tail != "" {
		return strings.HasSuffix(g.tail, ending) || strings.HasSuffix(ending, g.tail)
	}
	class := func(s symbol) bool { return s.kind == symClass && strings.ContainsFunc(ending, s.takes) }
	if slices.ContainsFunc(g.symbols, class) {
		return true
	}
	// What stands between the wildcards lies in the ending, or reaches into it.
	for i := 0; i < len(g.symbols); i++ {
		var text strings.Builder
		for ; i < len(g.symbols) && g.symbols[i].kind == symLiteral; i++ {
			text.WriteRune(g.symbols[i].char)
		}
		switch s := text.String(); {
		case s == "":
		case strings.Contains(ending, s), strings.Contains(s, ending):
			return true
		default:
			for n := 1; n < len(ending); n++ {
				if strings.HasSuffix(s, ending[:n]) {
					return true
				}
			}
		}
	}
	return false
}
