package document

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong in a document. Its text is
//
//	file:line:column: path: text; valid: valid
//
// without the parts that are not known.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 when not known
	Path         string // machines[0].role; empty for the whole document
	Text         string // what is wrong
	Valid        string // what would be right
}

func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Valid != "" {
		b.WriteString("; valid: " + p.Valid)
	}
	return b.String()
}

// Problems collects what is wrong while a document is checked.
type Problems []*Problem

// Add records a problem at path.
func (ps *Problems) Add(path, text, valid string) {
	*ps = append(*ps, &Problem{Path: path, Text: text, Valid: valid})
}

// Err joins the problems in document order, as far as their place is known;
// nil when there are none.
func (ps Problems) Err() error {
	sorted := slices.Clone(ps)
	slices.SortStableFunc(sorted, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	errs := make([]error, len(sorted))
	for i, p := range sorted {
		errs[i] = p
	}
	return errors.Join(errs...)
}
