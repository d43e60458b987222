/* SPDX-License-Identifier: MIT */
/* A TPM device node: Linux's /dev/tpmN, /dev/tpmrmN and whatever vtpm_proxy makes. */
#include "tpm/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

struct device {
	struct tpm tpm;
	int fd, epoll;
	bool stale; /* the answer of an abandoned command is still to come */
};

static bool is_exclusive(const char *target)
{
	return !strstr(target, "tpmrm");
}

static const char *way_out(int error)
{
	switch (error) {
	case EBUSY:
		return " (someone else has it open: stop tpm2-abrmd, or use /dev/tpmrm0)";
	case EACCES:
	case EPERM:
		return " (be root or in the group tss)";
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return " (has this machine a TPM? modprobe tpm_tis or tpm_crb)";
	default:
		return "";
	}
}

/*
 * drivers/char/tpm/tpm-dev-common.c: non-blocking, a command is executed by a worker, under a mutex that poll() and
 * read() take, too: who comes too early waits there for its end, beyond any time of ours, and his machine cannot suspend
 * meanwhile. An edge of epoll comes when the worker is done, and only then is the file asked.
 */
static int await_edges(int fd)
{
	struct epoll_event in = {.events = EPOLLIN | EPOLLET};
	int epoll = epoll_create1(EPOLL_CLOEXEC), rc;

	if (epoll < 0)
		return -errno;
	if (!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &in))
		return epoll;
	rc = errno == EPERM ? -ENOTTY : -errno; /* EPERM: a file for which nobody need wait */
	close(epoll);
	return rc;
}

static int device_open(const char *target, int timeout_ms, struct tpm **tpm, struct err *err)
{
	struct device *d;
	struct stat st;
	int fd, epoll;

	(void)timeout_ms;
	fd = open(target, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		int rc = -errno;

		if (rc == -ENXIO && !stat(target, &st) && S_ISSOCK(st.st_mode))
			return err_set(err, -ENOTTY, "open %s: a socket: say unix:%s", target,
				       target);
		return err_set(err, rc, "open %s: %s%s", target, strerror(-rc), way_out(-rc));
	}
	epoll = fstat(fd, &st) || !S_ISCHR(st.st_mode) ? -ENOTTY : await_edges(fd);
	if (epoll < 0) {
		close(fd);
		return epoll == -ENOTTY ? err_set(err, epoll, "open %s: not a TPM device", target)
					: err_sys(err, epoll, "open %s", target);
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		close(epoll);
		close(fd);
		return err_sys(err, -ENOMEM, "open %s", target);
	}
	d->tpm.ops = &tpm_device;
	d->fd = fd;
	d->epoll = epoll;
	*tpm = &d->tpm;
	return 0;
}

static void device_close(struct tpm *tpm)
{
	struct device *d = (struct device *)tpm;

	close(d->epoll);
	close(d->fd);
	free(d);
}

/* Take away the answer that nobody waits for any more; -EBUSY: it has not come yet. */
static int drain(struct device *d)
{
	uint8_t waste[TPM_BUF_MAX];
	struct epoll_event e;

	if (epoll_wait(d->epoll, &e, 1, 0) < 1)
		return -EBUSY;
	if (read(d->fd, waste, sizeof(waste)) < 0 && (errno == EAGAIN || errno == EBUSY))
		return -EBUSY;
	d->stale = false;
	return 0;
}

static int device_send(struct tpm *tpm, const uint8_t *cmd, size_t n)
{
	struct device *d = (struct device *)tpm;
	ssize_t done;

	if (d->stale) {
		int rc = drain(d);

		if (rc)
			return rc;
	}
	do {
		done = write(d->fd, cmd, n);
	} while (done < 0 && errno == EINTR);
	if (done < 0)
		return -errno;
	return (size_t)done == n ? 0 : -EIO;
}

static int device_receive(struct tpm *tpm, uint8_t *buf, int timeout_ms)
{
	struct device *d = (struct device *)tpm;
	struct epoll_event e;
	ssize_t n;

	if (epoll_wait(d->epoll, &e, 1, timeout_ms) < 1)
		return -EAGAIN;
	n = read(d->fd, buf, TPM_BUF_MAX);
	if (n > 0)
		return (int)n;
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	/* A device that went away reads as nothing for ever. */
	return e.events & (EPOLLHUP | EPOLLERR) ? -ENODEV : -EAGAIN;
}

static bool device_abandon(struct tpm *tpm)
{
	((struct device *)tpm)->stale = true;
	return true;
}

/* A chip that was removed stays dead for this descriptor. */
static bool survives(int error)
{
	return error != -ENODEV && error != -EPIPE && error != -EBADF && error != -ENXIO;
}

const struct tpm_transport tpm_device = {
	.prefixes = {"/"},
	.is_exclusive = is_exclusive,
	.open = device_open,
	.close = device_close,
	.send = device_send,
	.receive = device_receive,
	.abandon = device_abandon,
	.survives = survives,
};
