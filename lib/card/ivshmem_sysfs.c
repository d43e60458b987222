/* SPDX-License-Identifier: MIT */
/* An ivshmem device that no driver has: its BARs by sysfs, and no interrupts. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "card/ivshmem_grip.h"

/* A device that no driver took is asleep: its memory must be switched on. */
static void enable(const char *dir)
{
	char path[PATH_MAX], state[8];
	int fd;

	if (ivshmem_text(dir, "enable", state, sizeof(state)) || state[0] != '0')
		return;
	snprintf(path, sizeof(path), "%s/enable", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* If that fails, its memory reads as all ones, and is no card's. */
	(void)!write(fd, "1", 1);
	close(fd);
}

static int open_bar(struct ivshmem *v, unsigned bar, int *fd, struct err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/resource%u", v->dir, bar);
	*fd = open(path, O_RDWR | O_CLOEXEC);
	return *fd < 0 ? err_sys(err, -errno, "open %s", path) : 0;
}

static int sysfs_open(struct ivshmem *v, struct err *err)
{
	uint64_t start = 0, size = 0;
	void *p;
	int rc = open_bar(v, IVSHMEM_BAR_MEMORY, &v->fds[0], err);

	if (rc)
		return rc;
	enable(v->dir);
	rc = open_bar(v, IVSHMEM_BAR_REGISTERS, &v->fds[1], err);
	if (rc)
		return rc;
	if (ivshmem_bar(v->dir, IVSHMEM_BAR_REGISTERS, &start, &size))
		return err_set(err, -ENODEV, "open %s: it has no registers", v->dir);
	rc = ivshmem_map_registers(v, v->fds[1], 0, start % (uint64_t)sysconf(_SC_PAGESIZE));
	if (!rc && ivshmem_bar(v->dir, IVSHMEM_BAR_MEMORY, &start, &size))
		rc = -ENODEV;
	if (rc)
		return err_sys(err, rc, "map the registers of %s", v->dir);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fds[0], 0);
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "map the memory of %s", v->dir);
	v->map = p;
	v->size = size;
	v->lock_fd = v->fds[0];
	return 0;
}

const struct ivshmem_grip ivshmem_sysfs = {.name = "sysfs", .open = sysfs_open};
