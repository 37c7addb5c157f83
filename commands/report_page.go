package commands

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"os"
)

//go:embed report.html
var reportPage string

// pageTemplate is the report for who has no terminal: one file, without scripts, and with
// nothing that it loads from elsewhere.
var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": percent,
	"width": func(n int64, groups []group) string {
		most := int64(1)
		for _, g := range groups {
			most = max(most, g.Asked)
		}
		return fmt.Sprintf("%d.%d", n*100/most, n*1000/most%10)
	},
}).Parse(reportPage))

// writePage writes the report into a file.
func writePage(file string, r summary) error {
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, r); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return os.WriteFile(file, page.Bytes(), 0o644) //nolint:gosec // it is for others to read
}
