/* SPDX-License-Identifier: MIT */
/* A stream socket that speaks raw TPM commands: swtpm socket --server, or a proxy of it. */
#include "tpm/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "net/addr.h"

#define SLICE_MS 100

struct sock {
	struct tpm tpm;
	int fd;
	size_t have; /* of the response being received */
	bool excess; /* more came than was asked for */
	uint8_t buf[TPM_BUF_MAX];
};

static int check(const char *target, struct err *err)
{
	struct net_addr addr;

	return net_addr_parse(target, &addr, err);
}

/*
 * A blocking descriptor with a receive timeout: the common case then costs one system
 * call to send and one to receive, as a raw loop does.
 */
static int make_blocking(int fd)
{
	struct timeval slice = {.tv_usec = SLICE_MS * 1000};
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof(slice)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof(slice)))
		return -errno;
	return 0;
}

static int sock_open(const char *target, int timeout_ms, struct tpm **tpm, struct err *err)
{
	struct net_addr addr;
	struct sock *s;
	int fd, rc;

	rc = net_addr_parse(target, &addr, err);
	if (rc)
		return rc;
	fd = net_connect(&addr, timeout_ms, err);
	if (fd < 0)
		return fd;
	rc = make_blocking(fd);
	s = rc ? NULL : calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return err_sys(err, rc ? rc : -ENOMEM, "connect %s", target);
	}
	s->tpm.ops = &tpm_socket;
	s->fd = fd;
	*tpm = &s->tpm;
	return 0;
}

static void sock_close(struct tpm *tpm)
{
	struct sock *s = (struct sock *)tpm;

	close(s->fd);
	free(s);
}

static int sock_send(struct tpm *tpm, const uint8_t *cmd, size_t n)
{
	struct sock *s = (struct sock *)tpm;
	size_t done = 0;

	while (done < n) {
		ssize_t put = send(s->fd, cmd + done, n - done, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		done += (size_t)put;
	}
	return 0;
}

/* Wait exactly; the receive timeout of the descriptor is too coarse for what is left. */
static bool wait_readable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) > 0;
}

/* How much is still missing of what is there; 0: the response is whole; -EPROTO. */
static ssize_t missing(const struct sock *s)
{
	size_t size = tpm_response_size(s->buf, s->have);

	if (s->have < 10)
		return (ssize_t)(10 - s->have);
	if (size < 10 || size > TPM_BUF_MAX)
		return -EPROTO;
	return s->have < size ? (ssize_t)(size - s->have) : 0;
}

static int sock_receive(struct tpm *tpm, uint8_t *buf, int timeout_ms)
{
	struct sock *s = (struct sock *)tpm;
	ssize_t left, got;
	size_t size;

	if (timeout_ms < SLICE_MS && !wait_readable(s->fd, timeout_ms))
		return -EAGAIN;
	while ((left = missing(s)) > 0) {
		got = recv(s->fd, s->buf + s->have, sizeof(s->buf) - s->have, 0);
		if (got < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		if (!got)
			return -ECONNRESET;
		s->have += (size_t)got;
	}
	if (left < 0)
		return (int)left;
	size = tpm_response_size(s->buf, s->have);
	s->excess = s->have > size;
	s->have = 0;
	memcpy(buf, s->buf, size);
	return (int)size;
}

static bool out_of_step(struct tpm *tpm, bool look)
{
	struct sock *s = (struct sock *)tpm;
	uint8_t byte;

	return s->excess || (look && recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0);
}

const struct tpm_transport tpm_socket = {
	.prefixes = {"unix:", "tcp:", "vsock:"},
	.check = check,
	.open = sock_open,
	.close = sock_close,
	.send = sock_send,
	.receive = sock_receive,
	.out_of_step = out_of_step,
};
