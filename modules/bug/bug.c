// SPDX-License-Identifier: GPL-2.0
/*
 * BUG(): the kernel itself says that it cannot go on.
 *
 * On x86 it is the instruction ud2, which no processor knows. The exception
 * handler looks its address up in the table of bugs, finds the file and the line,
 * and prints "kernel BUG at FILE:LINE!".
 */
#include <linux/bug.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/printk.h>

static int balance = -1;

static noinline void hello_bug(void)
{
	BUG_ON(READ_ONCE(balance) < 0);
}

static int __init bug_init(void)
{
	pr_info("about to find a negative balance\n");
	hello_bug();
	return 0; /* never reached */
}
module_init(bug_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: BUG() when loaded");
