package doctor

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes the checks as a table for people. Why something is needed is
// said where it is missing.
func WriteTable(w io.Writer, checks []Check) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		mark, found := "ok", c.Found
		switch {
		case !c.OK && c.Package != "":
			mark, found = "MISSING", fmt.Sprintf("%s (package %s)", c.Need, c.Package)
		case !c.OK && c.Found != "":
			mark, found = "TOO LITTLE", fmt.Sprintf("%s instead of %s", c.Found, c.Need)
		case !c.OK:
			mark, found = "MISSING", c.Need
		case c.Info:
			mark = "-"
		}
		if !c.OK {
			found += ": " + c.Why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, mark, found)
	}
	return t.Flush()
}
