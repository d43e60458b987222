/* SPDX-License-Identifier: MIT */
#ifdef HAVE_XEN
#include "xen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenstore.h>
#include <xxhash.h>

#include "pair/message.h"
#include "vm/xen.h"

#define BATCH XEN_TYPES_MAX
#define PAGE 4096u

/* ---- which domain ---- */

static bool is_pv(libxl_ctx *ctx, uint32_t domid)
{
	libxl_dominfo info;
	bool yes;

	libxl_dominfo_init(&info);
	yes = !libxl_domain_info(ctx, &info, domid) && info.domain_type == LIBXL_DOMAIN_TYPE_PV;
	libxl_dominfo_dispose(&info);
	return yes;
}

int xen_domain_find(const char *uuid, struct xen_domain *d, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	char *name;

	d->domid = UINT32_MAX;
	snprintf(d->uuid, sizeof(d->uuid), "%s", uuid);
	if (!ctx)
		return err ? err->code : -ENODEV;
	d->domid = xen_find_uuid(ctx, uuid);
	if (d->domid == UINT32_MAX)
		return err_set(err, -ESRCH, "find domain %s: there is none here", uuid);
	name = libxl_domid_to_name(ctx, d->domid);
	snprintf(d->name, sizeof(d->name), "%s", name ? name : uuid);
	free(name);
	d->pv = is_pv(ctx, d->domid);
	return 0;
}

/* Of a domain with a device model its process's number is in xenstore. */
static bool has_device_model(uint32_t domid)
{
	struct xs_handle *xs = xs_open(0);
	char path[80], *pid = NULL;
	unsigned n;

	snprintf(path, sizeof(path), "/local/domain/%u/image/device-model-pid", domid);
	if (xs)
		pid = xs_read(xs, XBT_NULL, path, &n);
	if (xs)
		xs_close(xs);
	free(pid);
	return pid != NULL;
}

int xen_domain_movable(const struct xen_domain *d, bool offline, struct err *err)
{
	if (has_device_model(d->domid))
		return err_set(err, -ENOTSUP, "move %s: its device model (QEMU) has a state that would be left "
			       "behind (PVH domains have none)", d->name);
	if (d->pv && !offline)
		return err_set(err, -ENOTSUP, "move %s: what a PV domain writes cannot be logged here "
			       "(--offline suspends and copies it)", d->name);
	return 0;
}

static bool info_of(const struct xen_domain *d, libxl_dominfo *info)
{
	libxl_ctx *ctx = xen_ctx(NULL);
	char uuid[37];

	libxl_dominfo_init(info);
	if (!ctx || d->domid == UINT32_MAX || libxl_domain_info(ctx, info, d->domid))
		return false;
	xen_uuid_text(&info->uuid, uuid);
	return !strcmp(uuid, d->uuid) && !info->dying; /* a number is given again */
}

bool xen_domain_alive(const struct xen_domain *d)
{
	libxl_dominfo info;
	bool yes = info_of(d, &info);

	libxl_dominfo_dispose(&info);
	return yes;
}

bool xen_domain_runs(const struct xen_domain *d)
{
	libxl_dominfo info;
	bool yes = info_of(d, &info) && !info.paused && !info.shutdown;

	libxl_dominfo_dispose(&info);
	return yes;
}

/*
 * Not by libxl_domain_unpause(), which asks xenstore first (for a device model, which it has not): the other member,
 * which was started just now, keeps that busy.
 */
int xen_domain_start(xc_interface *xch, const struct xen_domain *d, struct err *err)
{
	xc_domaininfo_t info = {0};
	libxl_uuid handle;
	char uuid[37] = "";

	if (d->domid != UINT32_MAX && xc_domain_getinfolist(xch, d->domid, 1, &info) == 1 && info.domain == d->domid &&
	    !(info.flags & XEN_DOMINF_dying)) {
		memcpy(&handle.uuid, info.handle, sizeof(handle.uuid));
		xen_uuid_text(&handle, uuid);
	}
	if (strcmp(uuid, d->uuid) != 0)
		return err_set(err, -ESRCH, "start %s: it is gone", d->name);
	if (info.flags & XEN_DOMINF_paused && xc_domain_unpause(xch, d->domid))
		return xen_error(err, -EIO, "start %s", d->name);
	return 0;
}

bool xen_domain_suspended(const struct xen_domain *d)
{
	return xen_domain_alive(d) && xen_suspended(xen_ctx(NULL), d->domid);
}

int xen_domain_destroy(const struct xen_domain *d, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);

	if (!xen_domain_alive(d))
		return 0;
	if (libxl_domain_destroy(ctx, d->domid, NULL))
		return xen_error(err, -EIO, "destroy %s", d->name);
	return 0;
}

void xen_platform(char text[32])
{
	libxl_ctx *ctx = xen_ctx(NULL);
	const libxl_version_info *v = ctx ? libxl_get_version_info(ctx) : NULL;

	snprintf(text, 32, "xen %d.%d", v ? v->xen_version_major : 0, v ? v->xen_version_minor : 0);
}

int xen_domain_identify(const struct xen_domain *d, bool is_vtpm, struct pair_identity *id,
			struct err *err)
{
	libxl_dominfo info;
	char vtpm[37];
	int rc;

	if (!info_of(d, &info)) {
		libxl_dominfo_dispose(&info);
		return err_set(err, -ESRCH, "check %s: it is gone", d->name);
	}
	rc = xen_vtpm_of(xen_ctx(NULL), d->domid, vtpm, err);
	snprintf(id->uuid, sizeof(id->uuid), "%s", d->uuid);
	snprintf(id->name, sizeof(id->name), "%s", d->name);
	/* A vTPM's identity is the uuid of its own link to the manager; one without a link is itself. */
	snprintf(id->bound_to, sizeof(id->bound_to), "%s", is_vtpm && !vtpm[0] ? d->uuid : vtpm);
	id->mem_bytes = info.max_memkb << 10;
	xen_platform(id->platform);
	libxl_dominfo_dispose(&info);
	return rc;
}

/* ---- all of its memory ---- */

void xen_special_of(xc_interface *xch, uint32_t domid, struct xen_special *special)
{
	static const uint32_t param[] = {HVM_PARAM_STORE_PFN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_IOREQ_PFN,
					 HVM_PARAM_BUFIOREQ_PFN};

	_Static_assert(sizeof(param) / sizeof(param[0]) == sizeof(special->gfn) / sizeof(special->gfn[0]), "all");
	for (size_t i = 0; i < sizeof(param) / sizeof(param[0]); i++)
		if (xc_hvm_param_get(xch, domid, param[i], &special->gfn[i]))
			special->gfn[i] = 0;
}

bool xen_is_special(const struct xen_special *special, uint64_t gfn)
{
	for (size_t i = 0; i < sizeof(special->gfn) / sizeof(special->gfn[0]); i++)
		if (gfn && special->gfn[i] == gfn)
			return true;
	return false;
}

struct digest {
	const struct xen_domain *d;
	xc_interface *xch;
	xenforeignmemory_handle *fmem;
	XXH3_state_t *state;
	const struct xen_sent *sent;
	struct xen_special special;
};

/* The hash of a frame's content; of one that is not what was sent, as it is sent now. */
static int hash_frame(const struct digest *g, uint64_t gfn, const uint8_t *data, uint64_t *hash, struct err *err)
{
	uint8_t now[PAGE]; /* who writes it without the log may do so again */

	*hash = XXH3_64bits(data, PAGE);
	if (!g->sent || gfn >= g->sent->frames || g->sent->hash[gfn] == *hash)
		return 0;
	memcpy(now, data, PAGE);
	*hash = g->sent->hash[gfn] = XXH3_64bits(now, PAGE);
	return g->sent->again(g->sent->ctx, gfn, now, err);
}

/* @n ≤ BATCH frames that are there. */
static int digest_frames(const struct digest *g, const xen_pfn_t *gfn, size_t n, struct err *err)
{
	int failed[BATCH], rc = 0;
	uint8_t *map = n ? xenforeignmemory_map(g->fmem, g->d->domid, PROT_READ, n, gfn, failed) : NULL;
	uint64_t hash;

	if (n && !map)
		return err_sys(err, -errno, "map %zu pages of %s", n, g->d->name);
	for (size_t i = 0; !rc && i < n; i++) {
		if (failed[i] || xen_is_special(&g->special, gfn[i]))
			continue;
		rc = hash_frame(g, gfn[i], map + i * PAGE, &hash, err);
		XXH3_128bits_update(g->state, &gfn[i], sizeof(gfn[i]));
		XXH3_128bits_update(g->state, &hash, sizeof(hash));
	}
	if (map)
		xenforeignmemory_unmap(g->fmem, map, n);
	return rc;
}

static int digest_all(const struct digest *g, uint64_t frames, struct err *err)
{
	uint64_t *there = calloc(frames / 64 + 1, sizeof(*there));
	xen_pfn_t gfn[BATCH];
	size_t n = 0;
	int rc = there ? xen_frames(g->xch, g->d->domid, frames, there, err) : -ENOMEM;

	for (uint64_t w = 0; !rc && w <= frames / 64; w++) {
		for (uint64_t bits = there[w]; bits; bits &= bits - 1)
			gfn[n++] = w * 64 + (unsigned)__builtin_ctzll(bits);
		if (n + 64 > BATCH || w == frames / 64) {
			rc = digest_frames(g, gfn, n, err);
			n = 0;
		}
	}
	free(there);
	return rc;
}

int xen_domain_digest(const struct xen_domain *d, const struct xen_sent *sent, char hex[65], struct err *err)
{
	struct digest g = {.d = d, .sent = sent};
	XXH128_hash_t hash;
	xen_pfn_t pages = 0;
	int rc = 0;

	if (d->pv)
		return -ENODATA;
	g.xch = xen_control(err);
	g.fmem = g.xch ? xenforeignmemory_open(NULL, 0) : NULL;
	g.state = XXH3_createState();
	if (!g.fmem || !g.state || xc_domain_nr_gpfns(g.xch, d->domid, &pages) < 0)
		rc = xen_error(err, -EIO, "read memory of %s", d->name);
	if (!rc) {
		XXH3_128bits_reset(g.state);
		xen_special_of(g.xch, d->domid, &g.special);
	}
	if (!rc)
		rc = digest_all(&g, pages, err);
	if (!rc) {
		hash = XXH3_128bits_digest(g.state);
		snprintf(hex, 65, "%016llx%016llx", (unsigned long long)hash.high64,
			 (unsigned long long)hash.low64);
	}
	XXH3_freeState(g.state);
	if (g.fmem)
		xenforeignmemory_close(g.fmem);
	if (g.xch)
		xc_interface_close(g.xch);
	return rc;
}

void xen_sent_note(struct xen_sent *sent, uint64_t gfn, const void *data)
{
	if (gfn < sent->frames)
		sent->hash[gfn] = XXH3_64bits(data, PAGE);
}
#endif
