/* SPDX-License-Identifier: MIT */
/*
 * How a process in a guest gets hold of an ivshmem device: by the driver that has it, one file and one row of
 * ivshmem_grips[] each.
 */
#ifndef CARD_IVSHMEM_GRIP_H
#define CARD_IVSHMEM_GRIP_H

#include "card/way_ring.h"

#define IVSHMEM_BAR_REGISTERS 0
#define IVSHMEM_BAR_MEMORY 2
#define IVSHMEM_REG_POSITION 8
#define IVSHMEM_REG_DOORBELL 12

struct ivshmem_grip;

struct ivshmem {
	struct ring r; /* first */
	const struct ivshmem_grip *grip;
	char dir[128];	    /* of the device in sysfs */
	int lock_fd;	    /* what all processes lock that have a queue */
	uint8_t *map;	    /* all of BAR 2 */
	size_t size;
	void *page;	    /* where the registers are mapped, */
	volatile uint8_t *registers; /* in it; NULL: by register_fd only */
	int registers_fd;
	uint64_t registers_at; /* where in it */
	int fds[4];	    /* the grip's own, closed with it */
};

struct ivshmem_grip {
	const char *name;
	bool (*suits)(const char *dir);
	/* Map; fill in all of the above. Whatever is there when it fails, close() releases. */
	int (*open)(struct ivshmem *v, struct err *err);
	/* Interrupts for @queue: r.event_fd, r.vector, r.heard, way.how. NULL: there are none. */
	int (*listen)(struct ivshmem *v, uint32_t queue, struct err *err);
};

extern const struct ivshmem_grip ivshmem_uio, ivshmem_vfio, ivshmem_sysfs;

/* First words of a file of sysfs. 0, -errno. */
int ivshmem_text(const char *dir, const char *name, char *buf, size_t size);
/* Where a BAR begins and how long it is, by the device's folder. */
int ivshmem_bar(const char *dir, unsigned bar, uint64_t *start, uint64_t *size);
/* Map the registers, @size bytes of @fd at @at, which need not be a multiple of a page. */
int ivshmem_map_registers(struct ivshmem *v, int fd, uint64_t at, size_t within);

#endif
