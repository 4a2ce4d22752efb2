//go:build lab

package lab

import "testing"

// TestMatrixRows crashes an old and a new kernel; the others are mage matrix's.
func TestMatrixRows(t *testing.T) {
	for _, row := range MatrixRows() {
		if row.Name != "5.10" && row.Name != "7.2" {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			row.Scenario = "sysrq" // quick, and needs no compiler
			r := testLab(t).matrixRow(t.Context(), row, true)
			for _, p := range r.Problems {
				t.Error(p)
			}
			if !r.Tried || r.Traces == 0 || r.Traces != r.Tasks || len(r.Commands) != len(matrixCommands) {
				t.Errorf("row = %+v; want all commands and traces", r)
			}
		})
	}
}
