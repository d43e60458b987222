/* SPDX-License-Identifier: MIT */
/* Xen: populate-on-demand (PoD), frames that a guest gets only when it touches them, from a cache. */
#ifdef HAVE_XEN
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <xenstore.h>

#include "vm/drivers.h"
#include "vm/ondemand.h"
#include "vm/xen.h"

#define PAGE 4096u

/* What Xen itself holds for its maximum follows the target; xenstore keeps what it was made with. 0: not told. */
static uint64_t static_max_kib(uint32_t domid)
{
	struct xs_handle *xs = xs_open(0);
	char path[80], *text = NULL;
	uint64_t kib = 0;
	unsigned n;

	snprintf(path, sizeof(path), "/local/domain/%u/memory/static-max", domid);
	if (xs)
		text = xs_read(xs, XBT_NULL, path, &n);
	if (text)
		kib = strtoull(text, NULL, 10);
	free(text);
	if (xs)
		xs_close(xs);
	return kib;
}

static int read_memory(const struct vm *vm, struct vm_ondemand *out, struct err *err)
{
	uint64_t all = 0, cache = 0, entries = 0, target_kib = 0, max_kib = static_max_kib(vm->domid);
	libxl_ctx *ctx = xen_ctx(err);
	xc_interface *xch = ctx ? xen_control(err) : NULL;
	libxl_dominfo info;
	int rc = 0;

	if (!xch)
		return err ? err->code : -ENODEV;
	libxl_dominfo_init(&info);
	if (libxl_domain_info(ctx, &info, vm->domid) || libxl_get_memory_target(ctx, vm->domid, &target_kib))
		rc = xen_error(err, -ESRCH, "ask for the memory of %s", vm->target);
	/* A PV domain has none: not an error, it has all of its frames. */
	else if (info.domain_type != LIBXL_DOMAIN_TYPE_PV &&
		 xc_domain_get_pod_target(xch, vm->domid, &all, &cache, &entries))
		rc = xen_error(err, -EIO, "ask for the pages on demand of %s", vm->target);
	*out = (struct vm_ondemand){.max_bytes = (max_kib ? max_kib : info.max_memkb) << 10,
				    .target_bytes = target_kib << 10,
				    .given_bytes = info.current_memkb << 10, .cache_bytes = cache * PAGE,
				    .entry_bytes = entries * PAGE};
	libxl_dominfo_dispose(&info);
	xc_interface_close(xch);
	return rc;
}

static bool any_left(xc_interface *xch, uint32_t domid)
{
	uint64_t all, cache, entries = 0;

	return !xc_domain_get_pod_target(xch, domid, &all, &cache, &entries) && entries;
}

/*
 * To be asked for its type a frame must be there: Xen populates it (getpageframeinfo3 looks up with
 * P2M_ALLOC). From the bottom, until none is left.
 */
static int touch_all(xc_interface *xch, uint32_t domid, const char *name, struct err *err)
{
	xen_pfn_t frames = 0, type[XEN_TYPES_MAX];
	int rc = 0;

	if (xc_domain_nr_gpfns(xch, domid, &frames) < 0)
		return xen_error(err, -EIO, "ask for the memory of %s", name);
	for (xen_pfn_t at = 0; !rc && at < frames && any_left(xch, domid); at += XEN_TYPES_MAX) {
		unsigned n = frames - at < XEN_TYPES_MAX ? (unsigned)(frames - at) : XEN_TYPES_MAX;

		for (unsigned i = 0; i < n; i++)
			type[i] = at + i;
		rc = xen_page_types(xch, domid, type, n, err);
	}
	return rc;
}

static int fill_memory(const struct vm *vm, uint64_t bytes, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	xc_interface *xch = ctx ? xen_control(err) : NULL;
	int rc = 0;

	if (!xch)
		return err ? err->code : -ENODEV;
	/* The cache first: touched before there are frames for all, pages would be taken back from the guest. */
	if (libxl_set_memory_target(ctx, vm->domid, (int64_t)(bytes >> 10), 0, 1))
		rc = xen_error(err, -ENOMEM, "set the memory target of %s", vm->target);
	if (!rc)
		rc = touch_all(xch, vm->domid, vm->target, err);
	xc_interface_close(xch);
	return rc;
}

static int room(uint64_t *free_bytes, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	uint64_t kib = 0;

	if (!ctx)
		return err ? err->code : -ENODEV;
	if (libxl_get_free_memory(ctx, &kib))
		return xen_error(err, -EIO, "ask Xen for free memory");
	*free_bytes = kib << 10;
	return 0;
}

const struct vm_ondemand_ops xen_ondemand_ops = {read_memory, fill_memory, room};
#endif
