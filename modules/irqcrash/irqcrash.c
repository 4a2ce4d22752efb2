// SPDX-License-Identifier: GPL-2.0
/*
 * A write through a NULL pointer in an interrupt.
 *
 * A timer expires while this module's init function waits for it. The handler
 * runs on the CPU's interrupt stack; below it, on the task's own stack, is what
 * was interrupted and has nothing to do with the crash:
 *
 *	hello_interrupt <- ... <- hrtimer_interrupt <- ... <- hello_wait <- irqcrash_init
 */
#include <linux/hrtimer.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/version.h>

static int *null_pointer;
static struct hrtimer timer;

static enum hrtimer_restart hello_interrupt(struct hrtimer *t)
{
	WRITE_ONCE(*READ_ONCE(null_pointer), 42);
	return HRTIMER_NORESTART; /* never reached */
}

static noinline void hello_wait(void)
{
	for (;;)
		cpu_relax();
}

static int __init irqcrash_init(void)
{
	pr_info("about to write through a NULL pointer in an interrupt\n");
	/* The timer is to interrupt this very function: the same CPU, no other task. */
	preempt_disable();
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&timer, hello_interrupt, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
#else
	hrtimer_init(&timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	timer.function = hello_interrupt;
#endif
	hrtimer_start(&timer, ms_to_ktime(20), HRTIMER_MODE_REL_PINNED_HARD);
	hello_wait();
	return 0; /* never reached */
}
module_init(irqcrash_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: NULL pointer dereference in a timer interrupt");
