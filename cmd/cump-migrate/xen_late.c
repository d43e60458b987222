/* SPDX-License-Identifier: MIT */
/* What comes for a domain that libxl has built already: it is paused, and its memory is there. */
#ifdef HAVE_XEN
#include <errno.h>
#include <sys/mman.h>

#include "xen.h"
#include "xen_maps.h"
#include "xen_stream.h"

#define PAGE 4096u

struct late_domain {
	uint32_t domid;
	const char *name;
	xc_interface *xch;
	struct xen_maps *maps;
	struct xen_special special;
};

static void unmap(void *ctx)
{
	xen_maps_trim(((struct late_domain *)ctx)->maps);
}

/* Frames that came up at the source since libxl made the others. 1: all are there now. */
static int populate_failed(struct late_domain *d, const xen_pfn_t *gfn, size_t n, const int *failed, struct err *err)
{
	xen_pfn_t missing[CUMP_BATCH];
	unsigned count = 0;

	for (size_t i = 0; i < n; i++)
		if (failed[i])
			missing[count++] = gfn[i];
	if (!count)
		return 0;
	if (xc_domain_populate_physmap_exact(d->xch, d->domid, count, 0, 0, missing))
		return xen_error(err, -ENOMEM, "give %s %u more pages", d->name, count);
	return 1;
}

static int map(void *ctx, const uint64_t *gfn, size_t n, void **to, struct err *err)
{
	struct late_domain *d = ctx;
	int failed[CUMP_BATCH], rc = -EIO;
	uint8_t *at = xen_maps_add(d->maps, PROT_READ | PROT_WRITE, gfn, n, failed, err);

	if (at)
		rc = populate_failed(d, gfn, n, failed, err);
	if (rc > 0) {
		at = xen_maps_add(d->maps, PROT_READ | PROT_WRITE, gfn, n, failed, err);
		rc = at ? 0 : -EIO;
	}
	for (size_t i = 0; !rc && i < n; i++) {
		if (failed[i])
			rc = err_set(err, -EIO, "map page %#llx of %s", (unsigned long long)gfn[i], d->name);
		to[i] = xen_is_special(&d->special, gfn[i]) ? NULL : at + i * PAGE;
	}
	return rc;
}

static int set_tsc(void *ctx, const struct xen_tsc *t, struct err *err)
{
	struct late_domain *d = ctx;

	if (xc_domain_set_tsc_info(d->xch, d->domid, t->mode, t->nsec, t->khz, t->incarnation))
		return xen_error(err, -EIO, "set TSC of %s", d->name);
	return 0;
}

static int set_context(void *ctx, uint8_t *data, uint32_t n, struct err *err)
{
	struct late_domain *d = ctx;

	if (xc_domain_hvm_setcontext(d->xch, d->domid, data, n))
		return xen_error(err, -EIO, "set state of %s", d->name);
	return 0;
}

static const struct xen_late_ops ops = {map, unmap, set_tsc, set_context};

int xen_take_late(int fd, uint32_t domid, const char *name, struct xen_maps *maps, uint64_t *bytes, struct err *err)
{
	struct late_domain d = {.domid = domid, .name = name, .xch = xen_control(err), .maps = maps};
	int rc = d.xch ? xen_maps_open(maps, domid, err) : -ENODEV;

	*bytes = 0;
	if (!rc) {
		xen_special_of(d.xch, domid, &d.special);
		rc = xen_read_late(fd, &ops, &d, bytes, err);
	}
	if (d.xch)
		xc_interface_close(d.xch);
	return rc;
}
#endif
