/* SPDX-License-Identifier: MIT */
#include "vm/migrations.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_event(pid_t tid)
{
	/* With exclude_kernel it would always count 0: a migration happens in the kernel. */
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_MIGRATIONS,
	};
	long fd = syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static int read_sched(pid_t tid, uint64_t *count)
{
	char path[64], text[8192], *at;
	ssize_t n;
	int fd;

	/* /proc/TID exists for every thread, though it is not listed. */
	snprintf(path, sizeof(path), "/proc/%d/sched", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(path, sizeof(path), "/proc/%d", (int)tid);
		return access(path, F_OK) ? -ESRCH : -EACCES;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n <= 0)
		return n ? (int)n : -ESRCH;
	text[n] = '\0';
	at = strstr(text, "\nse.nr_migrations");
	at = at ? strchr(at, ':') : NULL;
	if (!at)
		return -EACCES;
	*count = strtoull(at + 1, NULL, 10);
	return 0;
}

int migrations_begin(struct migrations *m, pid_t tid, bool born, struct err *err)
{
	int rc;

	*m = (struct migrations){.tid = tid, .fd = -1};
	if (!born) {
		m->fd = open_event(tid);
		if (m->fd >= 0)
			return 0;
		if (m->fd == -ESRCH)
			return err_sys(err, -ESRCH, "count the migrations of %d", (int)tid);
		m->fd = -1;
	}
	rc = read_sched(tid, &m->base);
	if (rc == -EACCES && born)
		return migrations_begin(m, tid, false, err);
	if (rc == -EACCES)
		return err_set(err, rc, "count the migrations of %d: no right to its perf events "
			       "(root, or kernel.perf_event_paranoid=1), and no /proc/%d/sched",
			       (int)tid, (int)tid);
	if (rc)
		return err_sys(err, rc, "count the migrations of %d", (int)tid);
	if (born) {
		m->count = m->base;
		m->base = 0;
	}
	return 0;
}

int migrations_read(struct migrations *m)
{
	uint64_t now;
	int rc;

	if (m->fd >= 0) {
		if (read(m->fd, &now, sizeof(now)) == (ssize_t)sizeof(now))
			m->count = now;
		return 0;
	}
	rc = read_sched(m->tid, &now);
	if (rc)
		return rc;
	if (now >= m->base + m->count) /* less: the number is another thread's by now */
		m->count = now - m->base;
	return 0;
}

void migrations_end(struct migrations *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}
