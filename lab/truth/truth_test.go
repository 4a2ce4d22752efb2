package truth

import (
	"testing"

	"crashlab/crashkit/kernel"
)

func TestSameState(t *testing.T) {
	for _, c := range []struct {
		dump, guest string
		kthread     bool
		want        bool
	}{
		{"IN", "S (sleeping)", false, true},
		{"UN", "S (sleeping)", false, false},
		{"RU", "S (sleeping)", false, true},
		{"IN", "R (running)", false, true},
		{"WA", "S (sleeping)", false, true}, // woken, not yet running
		{"ID", "S (sleeping)", true, true},
		{"ZO", "S (sleeping)", true, false},
		{"IN", "", false, false},
	} {
		if got := sameState(kernel.Task{State: c.dump, Kthread: c.kthread}, c.guest); got != c.want {
			t.Errorf("sameState(%s, %q) = %v; want %v", c.dump, c.guest, got, c.want)
		}
	}
}
