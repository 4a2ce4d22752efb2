// SPDX-License-Identifier: GPL-2.0
/*
 * A loop without end that lets no other task run: a soft lockup.
 *
 * Interrupts still come, and in that of the watchdog's timer the kernel finds
 * that for 2 * kernel.watchdog_thresh seconds its own task of the highest
 * priority has not run. With kernel.softlockup_panic=1 that is the end.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/printk.h>

static noinline void hello_loop(void)
{
	for (;;)
		cpu_relax();
}

static int __init softlockup_init(void)
{
	pr_info("about to keep the CPU for ever\n");
	preempt_disable();
	hello_loop();
	return 0; /* never reached */
}
module_init(softlockup_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: soft lockup when loaded");
