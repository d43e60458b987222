/* SPDX-License-Identifier: MIT */
/*
 * ivshmem:[DEVICE][,queue=N]: in a guest, QEMU's ivshmem-doorbell by its PCI BARs, from user space. How they are got
 * hold of, and whether there are interrupts, depends on the driver that has the device (ivshmem_grip.h).
 * Processes of one guest each take a queue; which are taken, a lock on a file tells that all of them have open.
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
#include "card/way_address.h"

#define DEVICES "/sys/bus/pci/devices/"

/* By whose driver; if none of them, by sysfs. */
static const struct ivshmem_grip *const ivshmem_grips[] = {&ivshmem_uio, &ivshmem_vfio, NULL};

int ivshmem_text(const char *dir, const char *name, char *buf, size_t size)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, size - 1);
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

int ivshmem_bar(const char *dir, unsigned bar, uint64_t *start, uint64_t *size)
{
	char path[PATH_MAX], line[128] = "", *end;
	uint64_t from, to;
	bool there = true;
	FILE *f;

	snprintf(path, sizeof(path), "%s/resource", dir);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	for (unsigned i = 0; i <= bar && there; i++)
		there = fgets(line, sizeof(line), f);
	fclose(f);
	from = strtoull(line, &end, 16);
	to = strtoull(end, NULL, 16);
	if (!there || to <= from)
		return -ENODEV;
	*start = from;
	*size = to - from + 1;
	return 0;
}

int ivshmem_map_registers(struct ivshmem *v, int fd, uint64_t at, size_t within)
{
	void *p = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)at);

	if (p == MAP_FAILED)
		return -errno;
	v->page = p;
	v->registers = (uint8_t *)p + within;
	return 0;
}

static bool is_ivshmem(const char *dir)
{
	char vendor[16], device[16];

	return !ivshmem_text(dir, "vendor", vendor, sizeof(vendor)) &&
	       !ivshmem_text(dir, "device", device, sizeof(device)) && !strcmp(vendor, "0x1af4") &&
	       !strcmp(device, "0x1110");
}

static void device_close(struct ivshmem *v)
{
	if (v->page)
		munmap(v->page, (size_t)sysconf(_SC_PAGESIZE));
	if (v->map)
		munmap(v->map, v->size);
	for (size_t i = 0; i < sizeof(v->fds) / sizeof(*v->fds); i++) {
		if (v->fds[i] == v->lock_fd)
			v->lock_fd = -1;
		if (v->fds[i] >= 0)
			close(v->fds[i]);
		v->fds[i] = -1;
	}
	if (v->lock_fd >= 0)
		close(v->lock_fd);
	v->lock_fd = v->registers_fd = v->r.event_fd = v->r.lost_fd = -1;
	v->page = NULL;
	v->map = NULL;
	v->registers = NULL;
}

static int device_open(struct ivshmem *v, const char *dir, struct err *err)
{
	const struct ivshmem_grip *const *g = ivshmem_grips;
	int rc;

	snprintf(v->dir, sizeof(v->dir), "%s", dir);
	while (*g && !(*g)->suits(dir))
		g++;
	v->grip = *g ? *g : &ivshmem_sysfs;
	rc = v->grip->open(v, err);
	if (!rc && v->size < CARD_REGION_HEAD)
		rc = err_set(err, -ENODEV, "open %s: its memory is too small", dir);
	if (rc)
		device_close(v);
	return rc;
}

static uint32_t read_register(const struct ivshmem *v, unsigned at)
{
	uint32_t value = 0;

	if (v->registers)
		return *(volatile uint32_t *)(v->registers + at);
	return pread(v->registers_fd, &value, sizeof(value), (off_t)(v->registers_at + at)) == sizeof(value) ? value : 0;
}

static void write_register(const struct ivshmem *v, unsigned at, uint32_t value)
{
	if (v->registers)
		*(volatile uint32_t *)(v->registers + at) = value;
	else
		(void)!pwrite(v->registers_fd, &value, sizeof(value), (off_t)(v->registers_at + at));
}

/* Where its own part is in one region for all: the paper's "slots found by the VM's id". */
static int find_share(struct ivshmem *v)
{
	const struct card_region *head = (const struct card_region *)v->map;
	uint32_t id = read_register(v, IVSHMEM_REG_POSITION);

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
	const struct ivshmem *v = (const struct ivshmem *)r;
	uint32_t daemon = read_register(v, IVSHMEM_REG_POSITION) == 0;

	write_register(v, IVSHMEM_REG_DOORBELL, daemon << 16);
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

		if (!fcntl(v->lock_fd, F_OFD_SETLK, &lock)) {
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
static int find_device(struct ivshmem *v, struct err *err)
{
	glob_t g;
	int rc = -ENODEV;

	if (glob(DEVICES "*", 0, NULL, &g))
		return err_set(err, -ENODEV, "open ivshmem: no PCI devices");
	for (size_t i = 0; i < g.gl_pathc && rc; i++) {
		if (!is_ivshmem(g.gl_pathv[i]))
			continue;
		rc = device_open(v, g.gl_pathv[i], err);
		if (!rc)
			rc = find_share(v);
		if (rc)
			device_close(v);
	}
	globfree(&g);
	if (rc == -ENODEV)
		return err_set(err, rc, "open ivshmem: there is no ivshmem device that a cardshare daemon serves");
	return rc;
}

static void ivshmem_close(struct card_way *way)
{
	struct ivshmem *v = (struct ivshmem *)way;

	if (v->r.q)
		ring_detach(&v->r);
	device_close(v);
}

static int find_named(struct ivshmem *v, const char *name, struct err *err)
{
	char dir[PATH_MAX], real[PATH_MAX];
	int rc = folder_of(name, dir, sizeof(dir), err);

	if (!rc && !realpath(dir, real))
		rc = err_sys(err, -errno, "open ivshmem:%s", name);
	if (!rc) {
		snprintf(dir, sizeof(dir), DEVICES "%.64s", strrchr(real, '/') + 1);
		rc = device_open(v, dir, err);
	}
	if (!rc && find_share(v))
		rc = err_set(err, -ENODEV, "open ivshmem:%s: no cardshare daemon serves it", name);
	return rc;
}

static int ivshmem_open(struct card_way *way, const char *address, int timeout_ms, struct err *err)
{
	struct ivshmem *v = (struct ivshmem *)way;
	char name[64];
	uint32_t queue;
	int rc;

	v->lock_fd = v->registers_fd = v->r.event_fd = v->r.lost_fd = -1;
	memset(v->fds, 0xff, sizeof(v->fds));
	rc = way_address(address, "ivshmem:", name, sizeof(name), &queue, err);
	if (rc)
		return rc;
	snprintf(way->text, sizeof(way->text), "%s", address);
	rc = *name ? find_named(v, name, err) : find_device(v, err);
	if (!rc)
		rc = lock_queue(v, !strchr(address, ','), &queue, err);
	if (!rc) {
		snprintf(way->text, sizeof(way->text), "ivshmem:%.100s,queue=%u", strrchr(v->dir, '/') + 1, queue);
		snprintf(way->how, sizeof(way->how), "polling, by %s", v->grip->name);
		v->r.bell = ring_bell;
		rc = v->grip->listen ? v->grip->listen(v, queue, err) : 0;
	}
	if (!rc)
		rc = ring_attach(&v->r, v->size - (size_t)((uint8_t *)v->r.base - v->map), queue, timeout_ms, err);
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
