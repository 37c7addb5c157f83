package main

import (
	"fmt"
	"io"
	"strings"
)

// table is what became of the scenes: a row for each, a column for each seller.
type table struct {
	sellers []string
	scenes  []string
	cells   map[string][]string
}

// add notes what became of a scene with the seller that plays.
func (t *table) add(scene, format string, args ...any) {
	if t.cells == nil {
		t.cells = map[string][]string{}
	}
	if t.cells[scene] == nil {
		t.scenes = append(t.scenes, scene)
	}
	t.cells[scene] = append(t.cells[scene], fmt.Sprintf(format, args...))
}

// check makes sure that every seller has played every scene, once.
func (t *table) check() error {
	for _, scene := range t.scenes {
		if len(t.cells[scene]) != len(t.sellers) {
			return fmt.Errorf("%q: %d answers of %d sellers", scene, len(t.cells[scene]), len(t.sellers))
		}
	}
	return nil
}

// print writes it in Markdown.
func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(t.sellers, " | "), strings.Repeat("---|", len(t.sellers)))
	for _, scene := range t.scenes {
		fmt.Fprintf(w, "| %s | %s |\n", scene, strings.Join(t.cells[scene], " | "))
	}
}
