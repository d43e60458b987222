/* SPDX-License-Identifier: MIT */
/*
 * Pages of another domain, mapped. To unmap one costs dom0 as much as to map it (PV: a trap for each), so that it is
 * put off until a pair does not stand still for it: until then the latest stay mapped, for 8 bytes of page table each.
 * What the domain gives back meanwhile is free when it is not mapped any more.
 */
#ifndef XEN_MAPS_H
#define XEN_MAPS_H

#include "vm/xen.h"

#define XEN_MAPS_PAGES (1u << 16) /* that stay mapped, and in so many pieces */
#define XEN_MAPS_PIECES 1024u

/* All zero: closed. */
struct xen_maps {
	xenforeignmemory_handle *fmem;
	uint32_t domid;
	struct {
		void *at;
		size_t pages;
	} piece[XEN_MAPS_PIECES]; /* a ring */
	unsigned first, count;
	size_t pages;
};

int xen_maps_open(struct xen_maps *m, uint32_t domid, struct err *err);
void xen_maps_close(struct xen_maps *m); /* unmaps all */

/*
 * Frames @gfn, @n of them, in a row; @failed[i]: not that one (-errno). They are there until xen_maps_trim() at least. NULL
 * with @err. xenforeignmemory_map().
 */
void *xen_maps_add(struct xen_maps *m, int prot, const xen_pfn_t *gfn, size_t n, int *failed, struct err *err);

/* Unmap the oldest of what is more than stays. */
void xen_maps_trim(struct xen_maps *m);

#endif
