package study

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed study.html.tmpl
var page string

// WriteHTML writes the study as one HTML page that needs nothing but itself: no
// script, no font, no network.
func (s *Study) WriteHTML(w io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	t, err := template.New("study").Funcs(template.FuncMap{
		"svg":  func(c Chart) template.HTML { return template.HTML(svg(c)) }, // svg escapes what is not its own
		"text": func(c Chart, i int) string { return c.Points[i].text(c.Unit) },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("parse the page's template: %w", err)
	}
	return t.Execute(w, s)
}
