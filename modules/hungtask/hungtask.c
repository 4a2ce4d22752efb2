// SPDX-License-Identifier: GPL-2.0
/*
 * A task that waits for ever: it takes a mutex that it has already.
 *
 * It sleeps in state D, which no signal ends. The kernel thread khungtaskd looks
 * for tasks that have done so for kernel.hung_task_timeout_secs seconds, and with
 * kernel.hung_task_panic=1 it panics. The task that panics is not the one at fault.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/printk.h>

static DEFINE_MUTEX(lock);

static noinline void hello_deadlock(void)
{
	mutex_lock(&lock);
	mutex_lock(&lock); /* never returns */
	mutex_unlock(&lock);
	mutex_unlock(&lock);
}

static int __init hungtask_init(void)
{
	pr_info("about to wait for myself\n");
	hello_deadlock();
	return 0; /* never reached */
}
module_init(hungtask_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: a task that hangs when loaded");
