// SPDX-License-Identifier: GPL-2.0
/*
 * A recursion without end.
 *
 * Below the 16 KiB of a task's kernel stack lies a page that is not mapped, its
 * guard. The first access there is a page fault, for which the processor has to
 * push registers, on the very stack that has no room: a double fault. That one
 * has a stack of its own, one for each CPU.
 */
#include <linux/compiler.h>
#include <linux/init.h>
#include <linux/limits.h>
#include <linux/module.h>
#include <linux/printk.h>

static noinline int hello_recursion(int depth)
{
	char frame[1024];

	if (depth == INT_MAX)
		return 0;
	/* The compiler must neither leave out the array nor make this a loop. */
	OPTIMIZER_HIDE_VAR(depth);
	WRITE_ONCE(frame[0], 1);
	return hello_recursion(depth + 1) + READ_ONCE(frame[0]);
}

static int __init stackoverflow_init(void)
{
	pr_info("about to overflow the stack\n");
	return -hello_recursion(0); /* never returns */
}
module_init(stackoverflow_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: kernel stack overflow when loaded");
