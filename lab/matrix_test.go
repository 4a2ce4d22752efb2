package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSupport holds the page to the results that are stored beside it.
func TestSupport(t *testing.T) {
	root, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := ReadMatrix(filepath.Join(root, MatrixFile))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, SupportFile))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(page), Support(all)); diff != "" {
		t.Errorf("%s is not what %s generates (-stored +generated):\n%s", SupportFile, MatrixFile, diff)
	}
	// No row may be dropped, and none may be of a matrix that is no more.
	var rows []MatrixRow
	for _, r := range all {
		rows = append(rows, r.MatrixRow)
	}
	if diff := cmp.Diff(MatrixRows(), rows); diff != "" {
		t.Errorf("rows of %s (-wanted +stored):\n%s", MatrixFile, diff)
	}
}

// TestSupportFailures says that a failed row and an untried one are shown as such.
func TestSupportFailures(t *testing.T) {
	got := Support([]MatrixResult{
		{MatrixRow: MatrixRow{Name: "a", Spec: "debian"}, Tried: true, Problems: []string{"it broke"}},
		{MatrixRow: MatrixRow{Name: "b", Spec: "debian"}},
	})
	for _, want := range []string{"| a | `debian` |  |  | **failed** |", "| b | `debian` |  |  | not tried |", "## Why a failed\n\n- it broke\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("Support() lacks %q:\n%s", want, got)
		}
	}
}
