/* SPDX-License-Identifier: MIT */
/*
 * An ivshmem device that a UIO driver has: lib/patches/linux/uio, with a node a vector, named
 * "ivshmem-N"; or any other that maps both BARs, with one node for all.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "card/ivshmem_grip.h"

#define MAPS_MAX 5 /* MAX_UIO_MAPS */

/* The node for @vector, or, where they are not told apart, the first: "uio3". */
static int find_node(const char *dir, uint32_t vector, char *node, size_t size, bool *own)
{
	char path[PATH_MAX], name[32], wanted[32];
	glob_t g;

	snprintf(path, sizeof(path), "%s/uio/uio*", dir);
	if (glob(path, 0, NULL, &g))
		return -ENOENT;
	snprintf(wanted, sizeof(wanted), "ivshmem-%u", vector);
	*own = false;
	snprintf(node, size, "%s", strrchr(g.gl_pathv[0], '/') + 1);
	for (size_t i = 0; i < g.gl_pathc && !*own; i++) {
		*own = !ivshmem_text(g.gl_pathv[i], "name", name, sizeof(name)) && !strcmp(name, wanted);
		if (*own)
			snprintf(node, size, "%s", strrchr(g.gl_pathv[i], '/') + 1);
	}
	globfree(&g);
	return 0;
}

/* Which of a node's maps is this BAR. */
static int find_map(const char *dir, const char *node, unsigned bar)
{
	char name[64], text[32];
	uint64_t start, size;

	if (ivshmem_bar(dir, bar, &start, &size))
		return -ENODEV;
	for (int i = 0; i < MAPS_MAX; i++) {
		snprintf(name, sizeof(name), "uio/%.16s/maps/map%d/addr", node, i);
		if (!ivshmem_text(dir, name, text, sizeof(text)) && strtoull(text, NULL, 16) == start)
			return i;
	}
	return -ENOENT;
}

static bool uio_suits(const char *dir)
{
	char node[32];
	bool own;

	return !find_node(dir, 0, node, sizeof(node), &own) &&
	       find_map(dir, node, IVSHMEM_BAR_REGISTERS) >= 0 &&
	       find_map(dir, node, IVSHMEM_BAR_MEMORY) >= 0;
}

static int open_node(const char *node, char *path, size_t size, int *fd, struct err *err)
{
	snprintf(path, size, "/dev/%.16s", node);
	*fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	return *fd < 0 ? err_sys(err, -errno, "open %s", path) : 0;
}

static int uio_open(struct ivshmem *v, struct err *err)
{
	uint64_t start = 0, size = 0, page = (uint64_t)sysconf(_SC_PAGESIZE);
	char node[32], path[64];
	int memory, registers, rc;
	bool own;
	void *p;

	if (find_node(v->dir, 0, node, sizeof(node), &own))
		return err_set(err, -ENODEV, "open %s: its UIO node is gone", v->dir);
	registers = find_map(v->dir, node, IVSHMEM_BAR_REGISTERS);
	memory = find_map(v->dir, node, IVSHMEM_BAR_MEMORY);
	rc = open_node(node, path, sizeof(path), &v->fds[0], err);
	if (rc)
		return rc;
	if (registers < 0 || memory < 0 || ivshmem_bar(v->dir, IVSHMEM_BAR_REGISTERS, &start, &size))
		return err_set(err, -ENODEV, "open %s: it does not map the device", path);
	/* The offset tells which map: so many pages (Documentation/driver-api/uio-howto.rst). */
	rc = ivshmem_map_registers(v, v->fds[0], (uint64_t)registers * page, start % page);
	if (rc || ivshmem_bar(v->dir, IVSHMEM_BAR_MEMORY, &start, &size))
		return err_sys(err, rc ? rc : -ENODEV, "map the registers by %s", path);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fds[0], (off_t)((uint64_t)memory * page));
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "map the memory by %s", path);
	v->map = p;
	v->size = size;
	v->lock_fd = v->fds[0];
	return 0;
}

/* Drivers with interrupts to be switched on have it done; ours has none, and says so (ENOSYS). */
static void arm(const struct ring *r)
{
	uint32_t on = 1;

	(void)!write(r->event_fd, &on, sizeof(on));
}

static void uio_heard(struct ring *r)
{
	uint32_t n;

	if (read(r->event_fd, &n, sizeof(n)) == sizeof(n))
		arm(r);
}

static int uio_listen(struct ivshmem *v, uint32_t queue, struct err *err)
{
	char node[32], path[64];
	bool own;
	int rc;

	if (find_node(v->dir, queue, node, sizeof(node), &own))
		return err_set(err, -ENODEV, "open %s: its UIO node is gone", v->dir);
	rc = open_node(node, path, sizeof(path), &v->fds[1], err);
	if (rc)
		return rc;
	v->r.event_fd = v->fds[1];
	v->r.vector = own ? queue + 1 : 1;
	v->r.heard = uio_heard;
	arm(&v->r);
	snprintf(v->r.way.how, sizeof(v->r.way.how), "MSI-X by %.24s", path);
	return 0;
}

const struct ivshmem_grip ivshmem_uio = {
	.name = "UIO", .suits = uio_suits, .open = uio_open, .listen = uio_listen};
