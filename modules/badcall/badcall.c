// SPDX-License-Identifier: GPL-2.0
/*
 * A call through a function pointer that nobody has set.
 *
 * The processor jumps to address 0 and faults when it fetches the instruction:
 * RIP itself is NULL. No code is there, so nothing says how its frame looks; but
 * the call has just pushed the return address, so RSP points at it. In the dump,
 * the frames are
 *
 *	0 <- hello_call <- badcall_init <- do_one_initcall
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/printk.h>

static void (*handler)(void);

static noinline void hello_call(void)
{
	void (*call)(void) = READ_ONCE(handler);

	pr_info("about to call a NULL pointer\n");
	call();
	/* Behind the call, or it would become a jump and leave no frame. */
	pr_info("the call returned\n");
}

static int __init badcall_init(void)
{
	hello_call();
	return 0; /* never reached */
}
module_init(badcall_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: a call of NULL when loaded");
