// SPDX-License-Identifier: GPL-2.0
/*
 * A write through a NULL pointer in a handler of NMIs, the interrupts that
 * cannot be masked.
 *
 * "int $2" makes the processor enter the kernel as a real NMI does: it switches
 * to the NMI stack, of which each CPU has one. In the dump, the frames are
 *
 *	hello_nmi <- nmi_handle <- ... <- asm_exc_nmi <- hello_interrupted <- nmicrash_init
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <asm/nmi.h>

static int *null_pointer;

static int hello_nmi(unsigned int type, struct pt_regs *regs)
{
	WRITE_ONCE(*READ_ONCE(null_pointer), 42);
	return NMI_HANDLED; /* never reached */
}

static noinline void hello_interrupted(void)
{
	asm volatile("int $2");
}

static int __init nmicrash_init(void)
{
	int err = register_nmi_handler(NMI_LOCAL, hello_nmi, 0, "nmicrash");

	if (err)
		return err;
	pr_info("about to write through a NULL pointer in an NMI\n");
	hello_interrupted();
	unregister_nmi_handler(NMI_LOCAL, "nmicrash");
	return -EIO; /* never reached */
}
module_init(nmicrash_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crash lab: NULL pointer dereference in an NMI");
