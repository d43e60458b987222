/* SPDX-License-Identifier: MIT */
/*
 * ivshmem:[DEVICE][,queue=N]: in a guest, QEMU's ivshmem-doorbell by its PCI BARs, from user space:
 * through sysfs (polling), or with interrupts through a UIO node. Processes of one guest each take a
 * queue; which are taken, a lock on the BAR's file tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "card/way_address.h"
#include "card/way_ring.h"

#define DEVICES "/sys/bus/pci/devices/"
#define IVSHMEM_IDS "0x1af4\n0x1110\n"
#define BAR0_SIZE 4096u
#define REG_POSITION 8
#define REG_DOORBELL 12

struct ivshmem {
	struct ring r; /* first */
	int memory_fd, registers_fd, uio_fd;
	uint8_t *map;
	size_t size;
	volatile uint32_t *registers;
};

static int read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

static bool is_ivshmem(const char *dir)
{
	char path[PATH_MAX], ids[32] = "";

	snprintf(path, sizeof(path), "%s/vendor", dir);
	if (read_text(path, ids, 16))
		return false;
	snprintf(path, sizeof(path), "%s/device", dir);
	return !read_text(path, ids + strlen(ids), 16) && !strcmp(ids, IVSHMEM_IDS);
}

static void bar_close(struct ivshmem *v)
{
	if (v->registers)
		munmap((void *)(uintptr_t)v->registers, BAR0_SIZE);
	if (v->map)
		munmap(v->map, v->size);
	if (v->registers_fd >= 0)
		close(v->registers_fd);
	if (v->memory_fd >= 0)
		close(v->memory_fd);
	v->registers = NULL;
	v->map = NULL;
	v->registers_fd = v->memory_fd = -1;
}

/* A device that no driver took is asleep: its memory must be switched on. */
static void enable(const char *dir)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/enable", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* If that fails, its memory reads as all ones, and is no card's. */
	(void)!write(fd, "1", 1);
	close(fd);
}

static int bar_open(struct ivshmem *v, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct stat st;
	void *p = MAP_FAILED, *regs = MAP_FAILED;

	snprintf(path, sizeof(path), "%s/resource2", dir);
	v->memory_fd = open(path, O_RDWR | O_CLOEXEC);
	if (v->memory_fd < 0)
		return err_sys(err, -errno, "open %s", path);
	snprintf(path, sizeof(path), "%s/enable", dir);
	if (!read_text(path, path, sizeof(path)) && path[0] == '0')
		enable(dir);
	snprintf(path, sizeof(path), "%s/resource0", dir);
	v->registers_fd = open(path, O_RDWR | O_CLOEXEC);
	if (v->registers_fd < 0)
		return err_sys(err, -errno, "open %s", path);
	if (!fstat(v->memory_fd, &st) && st.st_size >= (off_t)CARD_REGION_HEAD) {
		v->size = (size_t)st.st_size;
		p = mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_SHARED, v->memory_fd, 0);
		regs = mmap(NULL, BAR0_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, v->registers_fd, 0);
	}
	if (p != MAP_FAILED)
		v->map = p;
	if (regs != MAP_FAILED)
		v->registers = regs;
	if (!v->map || !v->registers)
		return err_sys(err, -errno, "map the memory of %s", dir);
	return 0;
}

/* Where its own part is in one region for all: the paper's "slots found by the VM's id". */
static int find_share(struct ivshmem *v)
{
	const struct card_region *head = (const struct card_region *)v->map;
	uint32_t id = v->registers[REG_POSITION / 4];

	v->r.base = v->map;
	if (head->magic != CARD_REGION_MAGIC)
		return -ENODEV;
	if (!head->shares)
		return 0;
	if (id >= head->shares || !head->share_size || head->share_size > v->size / (id + UINT64_C(1)))
		return -EPROTO;
	v->r.base = v->map + id * head->share_size;
	return 0;
}

/* Peer 0 is the daemon; who is 0 himself (so that QEMU's master=on can move him) has it as peer 1. */
static void ring_bell(struct ring *r)
{
	volatile uint32_t *registers = ((struct ivshmem *)r)->registers;
	uint32_t daemon = registers[REG_POSITION / 4] == 0;

	registers[REG_DOORBELL / 4] = daemon << 16;
}

static void arm_uio(const struct ring *r)
{
	uint32_t on = 1;

	if (write(r->event_fd, &on, sizeof(on)) < 0)
		return; /* a driver without irqcontrol never disarms, either */
}

static void uio_heard(struct ring *r)
{
	uint32_t n;

	if (read(r->event_fd, &n, sizeof(n)) < 0)
		return;
	arm_uio(r);
}

/* The first queue that nobody locked, or the one asked for. */
static int lock_queue(struct ivshmem *v, bool any, uint32_t *queue, struct err *err)
{
	struct card_layout l;
	int rc = card_layout_read(v->r.base, v->size - (size_t)((uint8_t *)v->r.base - v->map), &l);

	/* A daemon that is not there yet is waited for, by ring_attach. */
	l.queues = rc ? 1 : l.queues;
	for (uint32_t q = any ? 0 : *queue; q < (any ? l.queues : *queue + 1); q++) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = q, .l_len = 1};

		if (!fcntl(v->memory_fd, F_OFD_SETLK, &lock)) {
			*queue = q;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return err_sys(err, -errno, "lock queue %u of %s", q, v->r.way.text);
	}
	return err_set(err, -EBUSY, "open %s: other processes have its queues (the host gives a VM more "
		       "by 'queues')", v->r.way.text);
}

/* "/dev/uio0" or a PCI address → the device's folder in sysfs. */
static int folder_of(const char *name, char *dir, size_t size, struct err *err)
{
	if (!strncmp(name, "/dev/uio", 8))
		snprintf(dir, size, "/sys/class/uio/%s/device", name + 5);
	else if (strchr(name, '/'))
		return err_set(err, -EINVAL, "address 'ivshmem:%.64s': neither a PCI address nor /dev/uioN", name);
	else
		snprintf(dir, size, DEVICES "%s%s", strlen(name) == 7 ? "0000:" : "", name);
	if (!is_ivshmem(dir))
		return err_set(err, -ENODEV, "open ivshmem:%.64s: that is no ivshmem device", name);
	return 0;
}

/* No device named: the first whose memory is a card's. */
static int find_device(struct ivshmem *v, char *dir, size_t size, struct err *err)
{
	glob_t g;
	int rc = -ENODEV;

	if (glob(DEVICES "*", 0, NULL, &g))
		return err_set(err, -ENODEV, "open ivshmem: no PCI devices");
	for (size_t i = 0; i < g.gl_pathc && rc; i++) {
		if (!is_ivshmem(g.gl_pathv[i]))
			continue;
		rc = bar_open(v, g.gl_pathv[i], err);
		if (!rc)
			rc = find_share(v);
		if (rc)
			bar_close(v);
		else
			snprintf(dir, size, "%s", g.gl_pathv[i]);
	}
	globfree(&g);
	if (rc == -ENODEV)
		return err_set(err, rc, "open ivshmem: there is no ivshmem device that a cardshare daemon serves");
	return rc;
}

/* Its UIO node, by the name that was given or as sysfs has it. */
static void open_uio(struct ivshmem *v, const char *name, const char *dir)
{
	char path[PATH_MAX];
	glob_t g;

	if (!strncmp(name, "/dev/uio", 8)) {
		v->uio_fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	} else {
		snprintf(path, sizeof(path), "%s/uio/uio*", dir);
		if (glob(path, 0, NULL, &g))
			return;
		snprintf(path, sizeof(path), "/dev/%s", strrchr(g.gl_pathv[0], '/') + 1);
		globfree(&g);
		v->uio_fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (v->uio_fd < 0)
		return;
	v->r.event_fd = v->uio_fd;
	v->r.vector = 1;
	arm_uio(&v->r);
}

static void ivshmem_close(struct card_way *way)
{
	struct ivshmem *v = (struct ivshmem *)way;

	if (v->r.q)
		ring_detach(&v->r);
	if (v->uio_fd >= 0)
		close(v->uio_fd);
	bar_close(v);
}

static int ivshmem_open(struct card_way *way, const char *address, int timeout_ms, struct err *err)
{
	struct ivshmem *v = (struct ivshmem *)way;
	char name[64], dir[PATH_MAX];
	uint32_t queue;
	int rc;

	v->memory_fd = v->registers_fd = v->uio_fd = v->r.event_fd = v->r.lost_fd = -1;
	rc = way_address(address, "ivshmem:", name, sizeof(name), &queue, err);
	if (rc)
		return rc;
	snprintf(way->text, sizeof(way->text), "%s", address);
	if (*name) {
		rc = folder_of(name, dir, sizeof(dir), err);
		if (!rc)
			rc = bar_open(v, dir, err);
		if (!rc && find_share(v))
			rc = err_set(err, -ENODEV, "open %s: no cardshare daemon serves it", address);
	} else {
		rc = find_device(v, dir, sizeof(dir), err);
	}
	if (!rc)
		rc = lock_queue(v, !strchr(address, ','), &queue, err);
	if (!rc) {
		snprintf(way->text, sizeof(way->text), "ivshmem:%.100s,queue=%u",
			 *name ? name : strrchr(dir, '/') + 1, queue);
		v->r.bell = ring_bell;
		v->r.heard = uio_heard;
		open_uio(v, name, dir);
		rc = ring_attach(&v->r, v->size - (size_t)((uint8_t *)v->r.base - v->map), queue,
				 timeout_ms, err);
	}
	if (rc)
		ivshmem_close(way);
	return rc;
}

const struct card_way_ops card_way_ivshmem = {
	.scheme = "ivshmem:",
	.found = DEVICES "*/resource2",
	.usual = "ivshmem:",
	.open = ivshmem_open,
	.close = ivshmem_close,
	.put = ring_put,
	.push = ring_push,
	.get = ring_get,
	.drop = ring_drop,
	.arm = ring_arm,
	.block = ring_block,
	.disarm = ring_disarm,
	.size = sizeof(struct ivshmem),
};
