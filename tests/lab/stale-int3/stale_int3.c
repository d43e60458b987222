// SPDX-License-Identifier: GPL-2.0
/*
 * stale_int3: Linux patches its code by way of a breakpoint (text_poke_bp). QEMU before 8.1 may translate code while
 * another CPU patches it, and then keeps a breakpoint that memory has no more: the kernel dies of it. This module
 * sees such a one, has QEMU translate the place again by writing there what is there, and goes on.
 */
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/uaccess.h>

#define INT3 0xcc

static unsigned int healed;
module_param(healed, uint, 0444);
MODULE_PARM_DESC(healed, "how many there were");

/*
 * The byte as it is, to where it is, through write protection. No plain write, as the place may be patched just
 * now; no write_cr0(), which keeps WP set. Interrupts are off.
 */
static void rewrite(u8 *at, u8 byte)
{
	unsigned long cr0 = read_cr0();

	asm volatile("mov %0, %%cr0" : : "r"(cr0 & ~X86_CR0_WP) : "memory");
	cmpxchg(at, byte, byte);
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
}

/* After whoever patches now (poke_int3_handler) and kprobes have said that it is none of theirs. */
static int on_die(struct notifier_block *nb, unsigned long event, void *data)
{
	struct die_args *args = data;
	u8 *at = (u8 *)args->regs->ip - 1, byte;

	if (event != DIE_INT3 || user_mode(args->regs) || copy_from_kernel_nofault(&byte, at, 1) || byte == INT3)
		return NOTIFY_DONE;
	rewrite(at, byte);
	args->regs->ip--;
	healed++;
	return NOTIFY_STOP;
}
NOKPROBE_SYMBOL(on_die);
NOKPROBE_SYMBOL(rewrite);

static struct notifier_block notifier = {
	.notifier_call = on_die,
};

static int __init stale_int3_init(void)
{
	return register_die_notifier(&notifier);
}

static void __exit stale_int3_exit(void)
{
	unregister_die_notifier(&notifier);
}

module_init(stale_int3_init);
module_exit(stale_int3_exit);
MODULE_DESCRIPTION("Go on after a breakpoint that an emulator should have forgotten");
MODULE_LICENSE("GPL");
