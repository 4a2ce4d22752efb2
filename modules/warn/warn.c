// SPDX-License-Identifier: GPL-2.0
/*
 * WARN(): something is wrong, and the kernel would go on.
 *
 * The exception is the same as that of BUG(), ud2, but its handler prints a
 * warning and returns behind the instruction; unless kernel.panic_on_warn=1.
 */
#include <linux/bug.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/printk.h>

static int balance = -1;

static noinline void hello_warning(void)
{
	WARN(READ_ONCE(balance) < 0, "the balance is %d\n", balance);
}

static int __init warn_init(void)
{
	pr_info("about to find a negative balance\n");
	hello_warning();
	return 0; /* not reached with panic_on_warn */
}
module_init(warn_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: WARN() when loaded");
