package kernel

import "testing"

// The states are those of include/linux/sched.h; what they are called is what
// /proc/PID/status (__task_state_index and get_task_state in fs/proc/array.c)
// and, for those that /proc does not tell apart, crash say.
func TestTaskStateName(t *testing.T) {
	for _, c := range []struct {
		state, exit uint64
		want        string
	}{
		{0, 0, "RU"},
		{0x0001, 0, "IN"},      // TASK_INTERRUPTIBLE
		{0x2001, 0, "IN"},      // and TASK_FREEZABLE
		{0x0002, 0, "UN"},      // TASK_UNINTERRUPTIBLE
		{0x0102, 0, "UN"},      // TASK_KILLABLE
		{0x0402, 0, "ID"},      // TASK_IDLE
		{0x0104, 0, "ST"},      // TASK_STOPPED
		{0x0008, 0, "TR"},      // __TASK_TRACED
		{0x0040, 0, "PA"},      // TASK_PARKED
		{0x0080, 0x0010, "DE"}, // TASK_DEAD, EXIT_DEAD
		{0x0080, 0x0020, "ZO"}, // TASK_DEAD, EXIT_ZOMBIE
		{0x0080, 0, "DE"},      // dead, not yet an exit state
		{0x0200, 0, "WA"},      // TASK_WAKING
		{0x0800, 0, "NE"},      // TASK_NEW
		{0x1000, 0, "UN"},      // TASK_RTLOCK_WAIT
		{0x8000, 0, "UN"},      // TASK_FROZEN
	} {
		if got := defaultStates.name(c.state, c.exit); got != c.want {
			t.Errorf("state %#x, exit state %#x is %s; want %s", c.state, c.exit, got, c.want)
		}
	}
}

func TestTaintsOf(t *testing.T) {
	for _, c := range []struct {
		mask  uint64
		names string
	}{
		{0, ""},
		{1<<12 | 1<<13, "O:OOT_MODULE E:UNSIGNED_MODULE "},
		{1<<7 | 1<<40, "D:DIE ?:BIT_40 "},
	} {
		got := ""
		for _, x := range taintsOf(c.mask, taintTable) {
			got += x.Letter + ":" + x.Name + " "
		}
		if got != c.names {
			t.Errorf("taints of %#x = %q; want %q", c.mask, got, c.names)
		}
	}
	for i, x := range taintTable {
		if x.Bit != i {
			t.Errorf("taint %s has bit %d at place %d", x.Name, x.Bit, i)
		}
	}
}
