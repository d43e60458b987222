/* SPDX-License-Identifier: MIT */
#ifdef HAVE_XEN
#include "xen_maps.h"

#include <errno.h>
#include <string.h>

int xen_maps_open(struct xen_maps *m, uint32_t domid, struct err *err)
{
	memset(m, 0, sizeof(*m));
	m->domid = domid;
	m->fmem = xenforeignmemory_open(NULL, 0);
	return m->fmem ? 0 : err_sys(err, -errno, "open foreign memory");
}

static void unmap_oldest(struct xen_maps *m)
{
	xenforeignmemory_unmap(m->fmem, m->piece[m->first].at, m->piece[m->first].pages);
	m->pages -= m->piece[m->first].pages;
	m->first = (m->first + 1) % XEN_MAPS_PIECES;
	m->count--;
}

void xen_maps_close(struct xen_maps *m)
{
	while (m->count)
		unmap_oldest(m);
	if (m->fmem)
		xenforeignmemory_close(m->fmem);
	m->fmem = NULL;
}

void *xen_maps_add(struct xen_maps *m, int prot, const xen_pfn_t *gfn, size_t n, int *failed, struct err *err)
{
	unsigned at = (m->first + m->count) % XEN_MAPS_PIECES;

	if (m->count == XEN_MAPS_PIECES)
		unmap_oldest(m);
	m->piece[at].at = xenforeignmemory_map(m->fmem, m->domid, prot, n, gfn, failed);
	if (!m->piece[at].at) {
		err_sys(err, -errno, "map %zu pages of domain %u", n, m->domid);
		return NULL;
	}
	m->piece[at].pages = n;
	m->pages += n;
	m->count++;
	return m->piece[at].at;
}

void xen_maps_trim(struct xen_maps *m)
{
	while (m->pages > XEN_MAPS_PAGES)
		unmap_oldest(m);
}
#endif
