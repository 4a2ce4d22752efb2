package command

import (
	"strings"
	"testing"

	"crashlab/crashkit/internal/fixture"
	"crashlab/crashkit/kernel"
)

// TestGenerations runs the commands for which the dumps were made on each
// generation of kernels. Whether the answers are true is seen in lab/truth.
func TestGenerations(t *testing.T) {
	for _, name := range fixture.Generations() {
		t.Run(name, func(t *testing.T) {
			env := NewEnv(fixture.OpenGeneration(t, name), name)
			n := 0
			for _, line := range lines(t, "generation.commands") {
				if a := Run(t.Context(), env, line); a.Err != nil {
					t.Errorf("%s: %v", line, a.Err)
				} else if strings.TrimSpace(text(t, a.Result)) == "" {
					t.Errorf("%s: no answer", line)
				}
				n++
			}
			if n < 15 {
				t.Errorf("%d commands; want all", n)
			}
			tasks, err := kernel.Tasks(env.Program)
			if err != nil || len(tasks) < 50 {
				t.Fatalf("Tasks = %d, %v", len(tasks), err)
			}
			if sys := answer(t, env, "sys"); !strings.Contains(sys, "RELEASE: "+name) {
				t.Errorf("sys = %s; want release %s", sys, name)
			}
		})
	}
}
