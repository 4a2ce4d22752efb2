package kernel

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"crashlab/crashkit/ctype"
)

// realTypes returns the types of real kernels, by file.
func realTypes(t *testing.T) map[string]*ctype.Set {
	t.Helper()
	files, err := filepath.Glob("testdata/*.btf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no types of real kernels in testdata: %v", err)
	}
	all := make(map[string]*ctype.Set)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		set, err := ctype.ParseBTF(b, nil)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[f] = set
	}
	return all
}

// resolve looks for the need in a kernel's types.
func (n Need) resolve(types *ctype.Set) error {
	_, _, err := n.Find(types)
	return err
}

// Every kernel has what the table says that all have.
func TestLayoutOfRealKernels(t *testing.T) {
	for name, types := range realTypes(t) {
		for _, n := range Layout() {
			if err := n.resolve(types); err != nil && !n.Optional {
				t.Errorf("%s: no %s: %v", name, n.Why, err)
			}
		}
	}
}

// between are members that only kernels between those of testdata have.
var between = map[string]string{
	"struct kretprobe_instance.llist": "from v5.11 to v5.17",
}

// Every name of the table is that of a member of some kernel.
func TestLayoutHasNoStrangers(t *testing.T) {
	kernels := realTypes(t)
	for _, n := range Layout() {
		for _, name := range n.Any {
			found := false
			for _, types := range kernels {
				found = found || Need{Type: n.Type, Any: []string{name}}.resolve(types) == nil
			}
			if _, ok := between[n.Type+"."+name]; !found && !ok {
				t.Errorf("no kernel in testdata has %s.%s", n.Type, name)
			}
		}
	}
}

// elsewhere are literals that are no whole names of members.
var elsewhere = map[string]bool{
	"_layout": true, // "core" + and "init" +
	"_stack":  true, // of each exception
	".next":   true, // of a struct llist_node
}

// Every member that the code names stands in the table.
func TestLayoutIsComplete(t *testing.T) {
	table := make(map[string]bool)
	for _, n := range Layout() {
		for _, name := range n.Any {
			table[name] = true
		}
	}
	for _, dir := range []string{".", "..", "../unwind", "../filter"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no source in %s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for at, name := range membersNamed(t, file) {
				if !table[name] && !elsewhere[name] {
					t.Errorf("%v: member %q is not in the table of layout.go", at, name)
				}
			}
		}
	}
}

// membersNamed returns the string literals among the arguments of functions
// that take the names of members.
func membersNamed(t *testing.T, file string) map[token.Position]string {
	t.Helper()
	// Function, and its first argument that may be such a name.
	takes := map[string]int{"Member": 0, "Has": 0, "OffsetOf": 1, "ContainerOf": 1, "List": 2}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[token.Position]string)
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fn, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		first, ok := takes[fn.Sel.Name]
		if !ok {
			return true
		}
		for _, arg := range call.Args[min(first, len(call.Args)):] {
			if sum, ok := arg.(*ast.BinaryExpr); ok {
				arg = sum.Y
			}
			if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				name, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				names[set.Position(lit.Pos())] = name
			}
		}
		return true
	})
	return names
}
