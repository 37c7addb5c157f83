package pricing

import "strings"

// Frameworks have a page once more as data, which their own code in the browser fetches
// when somebody follows a link: under a name in the folder of the page, or in a folder of
// their own.

// dataNames are the names in the folder of a page, or in one named like the page.
var dataNames = map[string]struct{}{
	"__data.json":   {}, // SvelteKit
	".data":         {}, // React Router: `/quote.data` is `/quote` in another format
	"_root.data":    {}, // React Router and Remix, for `/`
	"_.data":        {}, // React Router, for a page with a slash at its end
	"_.rsc":         {}, // the same with server components, and for `/`
	"_root.rsc":     {}, // React Router with server components, for `/`
	"_payload.json": {}, // Nuxt
	"_payload.js":   {}, // Nuxt
	"q-data.json":   {}, // Qwik
}

const (
	htmlData   = ".html__data.json" // SvelteKit, of a page with that ending
	nextData   = "/_next/data/"     // Next.js: `/_next/data/<build>/quote.json`
	nextEnd    = ".json"
	nextBegin  = "__next."     // Next.js, exported: `/quote/__next.quote.__PAGE__.txt`
	nextText   = ".txt"        // Next.js, exported: `/quote.txt` beside `/quote.html`
	flightData = ".data"       // React Router
	serverData = ".rsc"        // React Router with server components
	gatsbyData = "/page-data/" // Gatsby: `/page-data/quote/page-data.json`
	gatsbyEnd  = "/page-data.json"
)

// dataOf is a page whose data a path is.
type dataOf struct {
	page string
	// name is where the page, or what is said of it, begins in the path. A line names
	// the data that has a longer fixed beginning.
	name int
	// folder is how long the beginning is that all data have, 0 if they have none.
	folder int
	// as is not 0 if the data lie beside the file of the page, with an ending of their own.
	// Only a line for files says something of them then: for any other line they are a
	// format of the page.
	as otherName
}

// mayBeData says of most folded paths that they are no data of pages.
func mayBeData(path string) bool {
	path = trimSlash(path)
	for i := len(path) - 1; i >= max(0, len(path)-len(".json")); i-- {
		if path[i] == '.' {
			end := path[i:]
			return end == ".json" || end == ".data" || end == ".js" || end == ".txt" || end == ".rsc"
		}
	}
	return false
}

// pagesOf finds the pages whose data a folded path may be; the others are empty.
func pagesOf(path string) (pages [2]dataOf) {
	path = trimSlash(path)
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 || !mayBeData(path) {
		return pages
	}
	if _, ok := dataNames[path[slash+1:]]; ok {
		pages[0] = dataOf{page: path[:max(slash, 1)], name: slash + 1}
		return pages
	}
	if name := path[slash+1:]; strings.HasPrefix(name, nextBegin) && strings.HasSuffix(name, nextText) {
		pages[0] = dataOf{page: path[:max(slash, 1)], name: slash + 1}
		return pages
	}
	page, ok := strings.CutSuffix(path, flightData)
	if !ok {
		page, ok = strings.CutSuffix(path, serverData)
	}
	if ok {
		pages[0] = dataOf{page: page, name: len(page), as: asPage}
		if strings.IndexByte(page[slash+1:], '.') > 0 {
			pages[0].as = 0 // of such a name it is no format
		}
		return pages
	}
	if page, ok := strings.CutSuffix(path, nextText); ok {
		pages[0] = dataOf{page: page, name: len(page), as: asPage | asPageOfText}
		return pages
	}
	if strings.HasSuffix(path, htmlData) {
		end := len(path) - len(htmlData) + len(".html")
		pages[0] = dataOf{page: path[:end], name: end}
		return pages
	}
	if at := strings.Index(path, nextData); at >= 0 && strings.HasSuffix(path, nextEnd) {
		folder := at + len(nextData)
		if build := strings.IndexByte(path[folder:], '/'); build >= 0 {
			name := folder + build
			page := path[name : len(path)-len(nextEnd)]
			pages[0] = dataOf{page: pageBelow(path[:at], page), name: name + 1, folder: folder}
			if rest, ok := strings.CutPrefix(page, "/index/"); ok {
				pages[1] = dataOf{page: pageBelow(path[:at], "/"+rest), name: name + 1, folder: folder}
			}
		}
		return pages
	}
	if at := strings.Index(path, gatsbyData); at >= 0 && strings.HasSuffix(path[at+1:], gatsbyEnd) {
		folder := at + len(gatsbyData)
		page := path[folder-1 : max(folder, len(path)-len(gatsbyEnd))]
		pages[0] = dataOf{page: pageBelow(path[:at], page), name: folder, folder: folder}
	}
	return pages
}

// isData says whether a folded path is data of a page, and has a name that nothing else has.
func isData(path string) bool {
	pages := pagesOf(path)
	return pages[0].page != "" && pages[0].as == 0
}

// pageBelow is the page of that name, where `/index` is the folder itself.
func pageBelow(folder, page string) string {
	if page != "/index" {
		return folder + page
	}
	if folder == "" {
		return "/"
	}
	return folder
}

// goesBefore says whether a line for the data goes before what is said of the page, which
// may be by no line. It does if it names the data: `free /quote/*` beside `price /quote`
// does not, and neither does `free /_next/*`.
func (d dataOf) goesBefore(last, first *entry) bool {
	switch {
	case last.fixed() > d.name:
		return true
	case d.as != 0 && last.ends && last.rank.class == rankHead && first.rank.class == rankHead:
		return last.rank.head >= first.rank.head // as with `/articles/*.txt`
	case last.pattern.shape != shapeGlob || last.rank.class != rankHead:
		return false
	case d.folder > 0:
		return last.fixed() >= d.folder
	default:
		return first == nil || last.moreSpecific(first)
	}
}
