// SPDX-License-Identifier: GPL-2.0
/*
 * The classic: write through a pointer that nobody has set.
 *
 * Loading this module kills the kernel. In the dump, the frames are
 *
 *	hello_crash <- nullderef_init <- do_one_initcall <- do_init_module
 *
 * and the faulting address is 0, the value of null_pointer.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/printk.h>

/* A static variable without an initializer starts as zero: NULL. */
static int *null_pointer;

/* noinline: or the compiler would merge it into nullderef_init. */
static noinline void hello_crash(void)
{
	pr_info("about to write through a NULL pointer\n");

	/*
	 * READ_ONCE makes the compiler load the pointer, although it sees that
	 * nobody sets it: look for the register that holds NULL. WRITE_ONCE
	 * makes it store through it, where it might emit any other trap.
	 */
	WRITE_ONCE(*READ_ONCE(null_pointer), 42);
}

static int __init nullderef_init(void)
{
	hello_crash();
	return 0; /* never reached */
}
module_init(nullderef_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: NULL pointer dereference when loaded");
