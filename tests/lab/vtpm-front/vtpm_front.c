// SPDX-License-Identifier: GPL-2.0
/*
 * vtpm_front: the VM's half of the lab's split vTPM driver, a /dev/tpm0 whose commands are done by vtpm-back in
 * another guest. vtpm-back.c tells why they go by datagrams. Unlike xen-tpmfront it keeps its TPM through a suspend,
 * and who waits for an answer can be frozen: a VM suspends whether its vTPM is still there or not.
 */
#include <linux/inet.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/tpm.h>
#include <linux/wait.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "frame.h"

/* Of drivers/char/tpm/tpm.h, which no package of headers has. */
struct tpm_chip *tpm_chip_alloc(struct device *dev, const struct tpm_class_ops *ops);
int tpm_chip_register(struct tpm_chip *chip);

#define REPEAT_MS 4
#define DONE	  1 /* status: send() returns with the answer */

static char *address = "10.77.0.2";
module_param(address, charp, 0444);
MODULE_PARM_DESC(address, "of the vTPM guest");

static ushort port = 2322;
module_param(port, ushort, 0444);
MODULE_PARM_DESC(port, "UDP, of vtpm-back there");

static bool freezable = true;
module_param(freezable, bool, 0644);
MODULE_PARM_DESC(freezable, "whether who waits for an answer can be frozen; with xen-tpmfront, nobody can");

static ulong commands, repeated, longest_us;
module_param(commands, ulong, 0444);
module_param(repeated, ulong, 0444);
module_param(longest_us, ulong, 0444);
MODULE_PARM_DESC(longest_us, "that a command took");

/* One command at a time: the TPM's core sees to that. */
static struct socket *back;
static DECLARE_WAIT_QUEUE_HEAD(arrived);
static u64 session, seq;
static struct frame out, in;
static size_t answer; /* bytes of in.tpm */

static void on_datagram(struct sock *sk)
{
	wake_up(&arrived);
}

/* One that fails is a datagram lost: the peer may be away. */
static void send_command(size_t len)
{
	struct kvec vec = { .iov_base = &out, .iov_len = FRAME_HEAD + len };
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT };

	kernel_sendmsg(back, &msg, &vec, 1, vec.iov_len);
}

/* Another back end, or it began anew: nobody can tell whether the command was done, so it has failed. */
static size_t lost_session(void)
{
	static const u8 failure[TPM_HEAD] = { 0x80, 0x01, 0, 0, 0, TPM_HEAD, 0, 0, 0x01, 0x01 };

	session = get_random_u64();
	seq = 0;
	memcpy(in.tpm, failure, sizeof(failure));
	return sizeof(failure);
}

/* The size of the answer to what was sent last, or 0: it is not there yet. */
static size_t take_answer(void)
{
	struct kvec vec = { .iov_base = &in, .iov_len = sizeof(in) };
	struct msghdr msg = {};
	int n;

	while ((n = kernel_recvmsg(back, &msg, &vec, 1, sizeof(in), MSG_DONTWAIT)) >= 0) {
		if (n < (int)FRAME_HEAD || in.magic != out.magic || in.session != out.session || in.seq != out.seq)
			continue;
		if (in.type == cpu_to_be32(FRAME_NO_SESSION))
			return lost_session();
		if (in.type == cpu_to_be32(FRAME_RESPONSE) && n >= (int)FRAME_HEAD + TPM_HEAD)
			return n - FRAME_HEAD;
	}
	return 0;
}

static void await_datagram(unsigned long until)
{
	long left = until - jiffies;
	DEFINE_WAIT(wait);

	prepare_to_wait(&arrived, &wait, TASK_KILLABLE | (freezable ? TASK_FREEZABLE : 0));
	if (left > 0 && skb_queue_empty_lockless(&back->sk->sk_receive_queue))
		schedule_timeout(left);
	finish_wait(&arrived, &wait);
}

/*
 * The whole exchange, however long it takes. The core has deadlines of its own (750 ms for most commands, less than
 * a move can take), but counts from here on only, and whatever was given up would have been done all the same.
 */
static int front_send(struct tpm_chip *chip, u8 *command, size_t len)
{
	unsigned long again = jiffies + msecs_to_jiffies(REPEAT_MS), us;
	const ktime_t begun = ktime_get();

	if (len > TPM_MAX)
		return -E2BIG;
	out.magic = cpu_to_be32(FRAME_MAGIC);
	out.type = cpu_to_be32(FRAME_COMMAND);
	out.session = cpu_to_be64(session);
	out.seq = cpu_to_be64(++seq);
	memcpy(out.tpm, command, len);
	commands++;
	send_command(len);
	while (!(answer = take_answer())) {
		if (fatal_signal_pending(current))
			return -EINTR;
		await_datagram(again);
		if (time_before(jiffies, again))
			continue;
		repeated++;
		send_command(len);
		again = jiffies + msecs_to_jiffies(REPEAT_MS);
	}
	us = ktime_us_delta(ktime_get(), begun);
	longest_us = max(longest_us, us);
	return 0;
}

static int front_receive(struct tpm_chip *chip, u8 *response, size_t len)
{
	if (answer > len)
		return -EIO;
	memcpy(response, in.tpm, answer);
	return answer;
}

static u8 front_status(struct tpm_chip *chip)
{
	return DONE;
}

static bool front_canceled(struct tpm_chip *chip, u8 status)
{
	return false;
}

static void front_cancel(struct tpm_chip *chip)
{
}

static const struct tpm_class_ops ops = {
	.flags = TPM_OPS_AUTO_STARTUP,
	.req_complete_mask = DONE,
	.req_complete_val = DONE,
	.req_canceled = front_canceled,
	.send = front_send,
	.recv = front_receive,
	.status = front_status,
	.cancel = front_cancel,
};

static int __init front_connect(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int rc;

	if (!in4_pton(address, -1, (u8 *)&to.sin_addr, '\0', NULL))
		return -EINVAL;
	rc = sock_create_kern(&init_net, AF_INET, SOCK_DGRAM, IPPROTO_UDP, &back);
	if (rc)
		return rc;
	rc = kernel_connect(back, (struct sockaddr *)&to, sizeof(to), 0);
	if (rc) {
		sock_release(back);
		return rc;
	}
	write_lock_bh(&back->sk->sk_callback_lock);
	back->sk->sk_data_ready = on_datagram;
	write_unlock_bh(&back->sk->sk_callback_lock);
	return 0;
}

/* Returns when the vTPM has answered the core's first commands. It stays: there is no exit. */
static int __init vtpm_front_init(void)
{
	struct tpm_chip *chip;
	int rc = front_connect();

	if (rc)
		return rc;
	session = get_random_u64();
	chip = tpm_chip_alloc(NULL, &ops);
	if (IS_ERR(chip)) {
		rc = PTR_ERR(chip);
		goto release;
	}
	chip->flags |= TPM_CHIP_FLAG_TPM2;
	rc = tpm_chip_register(chip);
	if (!rc)
		return 0;
	put_device(&chip->dev);
release:
	sock_release(back);
	return rc;
}

module_init(vtpm_front_init);
MODULE_DESCRIPTION("A TPM in another guest");
MODULE_LICENSE("GPL");
