package unwind

import "crashlab/crashkit/addr"

func (u *Unwinder) original(task, v, slot addr.Virt) addr.Virt { return v }
