/* SPDX-License-Identifier: MIT */
#include "vm/births.h"

#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM (1 << 20)	 /* of the socket, for bursts */
#define ANSWER_MS 500	 /* until the first word */
#define READS 1000	 /* in one births_read: a machine that forks without end must not hold us */

static int subscribe(int fd)
{
	char m[NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof(enum proc_cn_mcast_op))]
		__attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr head = {.nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_DONE};
	enum proc_cn_mcast_op op = PROC_CN_MCAST_LISTEN;
	struct cn_msg cn = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof(op)};

	memcpy(m, &head, sizeof(head));
	memcpy(m + NLMSG_HDRLEN, &cn, sizeof(cn));
	memcpy(m + NLMSG_HDRLEN + sizeof(cn), &op, sizeof(op));
	return send(fd, m, sizeof(m), 0) == (ssize_t)sizeof(m) ? 0 : -errno;
}

static void tell(const struct proc_event *ev, births_fn *fn, void *ctx)
{
	uint64_t when_us = ev->timestamp_ns / 1000; /* CLOCK_MONOTONIC */

	switch (ev->what) {
	case PROC_EVENT_FORK:
		fn(ctx, BIRTH_FORK, ev->event_data.fork.child_tgid,
		   ev->event_data.fork.child_pid, ev->event_data.fork.parent_tgid, when_us);
		break;
	case PROC_EVENT_COMM:
		fn(ctx, BIRTH_COMM, ev->event_data.comm.process_tgid,
		   ev->event_data.comm.process_pid, 0, when_us);
		break;
	case PROC_EVENT_EXIT:
		fn(ctx, BIRTH_EXIT, ev->event_data.exit.process_tgid,
		   ev->event_data.exit.process_pid, 0, when_us);
		break;
	default:
		break;
	}
}

int births_read(int fd, births_fn *fn, void *ctx)
{
	char buf[4096] __attribute__((aligned(NLMSG_ALIGNTO)));

	for (int i = 0; i < READS; i++) {
		struct sockaddr_nl from = {0};
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
		struct nlmsghdr *h = (struct nlmsghdr *)buf;
		struct proc_event ev;
		struct cn_msg cn;

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (from.nl_pid) /* not the kernel */
			continue;
		if (!NLMSG_OK(h, (size_t)n) || h->nlmsg_len < NLMSG_LENGTH(sizeof(cn) + sizeof(ev)))
			continue;
		memcpy(&cn, NLMSG_DATA(h), sizeof(cn));
		memcpy(&ev, (char *)NLMSG_DATA(h) + sizeof(cn), sizeof(ev));
		if (cn.id.idx == CN_IDX_PROC && cn.id.val == CN_VAL_PROC)
			tell(&ev, fn, ctx);
	}
	return 0;
}

static int failed(int fd, int rc, struct err *err)
{
	close(fd);
	return err_sys(err, rc, "listen for births of threads");
}

int births_open(struct err *err)
{
	int fd = socket(PF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR), room = ROOM, rc;
	struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return err_sys(err, -errno, "listen for births of threads");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return failed(fd, -errno, err);
	rc = subscribe(fd);
	if (rc)
		return failed(fd, rc, err);
	/* It acknowledges, unless it does not speak in this namespace. */
	if (poll(&p, 1, ANSWER_MS) != 1)
		return failed(fd, -ENOTSUP, err);
	return fd;
}
