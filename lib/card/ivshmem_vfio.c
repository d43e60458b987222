/* SPDX-License-Identifier: MIT */
/*
 * An ivshmem device that vfio-pci has (linux/vfio.h): BARs and MSI-X without a driver of its own, where the
 * guest has an IOMMU. VFIO lets one process at a time have a group; and it waits for that process when
 * the device is to be unplugged, which is why it asks.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "card/ivshmem_grip.h"

enum { FD_CONTAINER, FD_DEVICE, FD_EVENT, FD_LOST }; /* in fds[]; the group's is lock_fd */

static bool vfio_suits(const char *dir)
{
	char path[PATH_MAX], driver[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/driver", dir);
	n = readlink(path, driver, sizeof(driver) - 1);
	if (n < 0)
		return false;
	driver[n] = '\0';
	return strlen(driver) >= 9 && !strcmp(driver + strlen(driver) - 9, "/vfio-pci");
}

static int group_number(const char *dir, char *number, size_t size)
{
	char path[PATH_MAX], group[PATH_MAX], *slash;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/iommu_group", dir);
	n = readlink(path, group, sizeof(group) - 1);
	if (n < 0)
		return -errno;
	group[n] = '\0';
	slash = strrchr(group, '/');
	snprintf(number, size, "%s", slash ? slash + 1 : group);
	return 0;
}

static int open_group(struct ivshmem *v, struct err *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char number[16], path[64];
	int rc = group_number(v->dir, number, sizeof(number));

	if (rc)
		return err_sys(err, rc, "open %s: no IOMMU group", v->dir);
	v->fds[FD_CONTAINER] = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->fds[FD_CONTAINER] < 0)
		return err_sys(err, -errno, "open /dev/vfio/vfio");
	snprintf(path, sizeof(path), "/dev/vfio/%.15s", number);
	v->lock_fd = open(path, O_RDWR | O_CLOEXEC);
	if (v->lock_fd < 0 && errno == EBUSY)
		return err_set(err, -EBUSY, "open %s: another process has it; VFIO lets one at a time "
			       "(the UIO module: as many as there are queues)", path);
	if (v->lock_fd < 0)
		return err_sys(err, -errno, "open %s", path);
	if (ioctl(v->lock_fd, VFIO_GROUP_GET_STATUS, &status) || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return err_set(err, -EBUSY, "open %s: another driver has a device of its group", path);
	if (ioctl(v->lock_fd, VFIO_GROUP_SET_CONTAINER, &v->fds[FD_CONTAINER]) ||
	    ioctl(v->fds[FD_CONTAINER], VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return err_sys(err, -errno, "open %s", path);
	v->fds[FD_DEVICE] = ioctl(v->lock_fd, VFIO_GROUP_GET_DEVICE_FD, strrchr(v->dir, '/') + 1);
	if (v->fds[FD_DEVICE] < 0)
		return err_sys(err, -errno, "open %s by VFIO", v->dir);
	return 0;
}

static int region(const struct ivshmem *v, unsigned index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){.argsz = sizeof(*info), .index = index};
	return ioctl(v->fds[FD_DEVICE], VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
}

/* An MSI-X is a write of the device: it must be let. Its memory, too, is off after a reset. */
static int switch_on(const struct ivshmem *v)
{
	struct vfio_region_info config;
	uint16_t command;
	int rc = region(v, VFIO_PCI_CONFIG_REGION_INDEX, &config);
	off_t at = rc ? 0 : (off_t)config.offset + PCI_COMMAND;

	if (rc || pread(v->fds[FD_DEVICE], &command, sizeof(command), at) != sizeof(command))
		return rc ? rc : -EIO;
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	return pwrite(v->fds[FD_DEVICE], &command, sizeof(command), at) == sizeof(command) ? 0 : -EIO;
}

static int vfio_open(struct ivshmem *v, struct err *err)
{
	struct vfio_region_info memory, registers;
	int rc = open_group(v, err);
	void *p;

	if (rc)
		return rc;
	rc = switch_on(v);
	if (!rc)
		rc = region(v, VFIO_PCI_BAR2_REGION_INDEX, &memory);
	if (!rc)
		rc = region(v, VFIO_PCI_BAR0_REGION_INDEX, &registers);
	if (rc)
		return err_sys(err, rc, "open %s by VFIO", v->dir);
	v->registers_fd = v->fds[FD_DEVICE];
	v->registers_at = registers.offset;
	if (registers.flags & VFIO_REGION_INFO_FLAG_MMAP)
		(void)ivshmem_map_registers(v, v->registers_fd, registers.offset, 0);
	p = mmap(NULL, memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fds[FD_DEVICE], (off_t)memory.offset);
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "map the memory of %s by VFIO", v->dir);
	v->map = p;
	v->size = memory.size;
	return 0;
}

static int set_event(const struct ivshmem *v, unsigned index, uint32_t start, int event)
{
	uint8_t room[sizeof(struct vfio_irq_set) + sizeof(int)] = {0};
	struct vfio_irq_set set = {.argsz = sizeof(room), .index = index, .start = start, .count = 1,
				   .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER};

	memcpy(room, &set, sizeof(set));
	memcpy(room + sizeof(set), &event, sizeof(event));
	return ioctl(v->fds[FD_DEVICE], VFIO_DEVICE_SET_IRQS, room) ? -errno : 0;
}

static void vfio_heard(struct ring *r)
{
	uint64_t n;

	(void)!read(r->event_fd, &n, sizeof(n));
}

static int vfio_listen(struct ivshmem *v, uint32_t queue, struct err *err)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
	char number[16] = "";
	uint32_t vector;
	int rc;

	if (ioctl(v->fds[FD_DEVICE], VFIO_DEVICE_GET_IRQ_INFO, &info) || !info.count)
		return 0; /* ivshmem-plain: polled */
	vector = queue < info.count ? queue : 0;
	v->fds[FD_EVENT] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	v->fds[FD_LOST] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = v->fds[FD_EVENT] < 0 || v->fds[FD_LOST] < 0 ? -errno : 0;
	if (!rc)
		rc = set_event(v, VFIO_PCI_MSIX_IRQ_INDEX, vector, v->fds[FD_EVENT]);
	if (!rc)
		rc = set_event(v, VFIO_PCI_REQ_IRQ_INDEX, 0, v->fds[FD_LOST]);
	if (rc)
		return err_sys(err, rc, "open %s: interrupts by VFIO", v->dir);
	v->r.event_fd = v->fds[FD_EVENT];
	v->r.lost_fd = v->fds[FD_LOST];
	v->r.vector = vector + 1;
	v->r.heard = vfio_heard;
	(void)group_number(v->dir, number, sizeof(number));
	snprintf(v->r.way.how, sizeof(v->r.way.how), "MSI-X by /dev/vfio/%.15s", number);
	return 0;
}

const struct ivshmem_grip ivshmem_vfio = {
	.name = "VFIO", .suits = vfio_suits, .open = vfio_open, .listen = vfio_listen};
