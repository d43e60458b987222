/* SPDX-License-Identifier: MIT */
/* Xen: domains by name, number or uuid, through libxenlight. */
#ifdef HAVE_XEN
#include "vm/xen.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "base/log.h"
#include "vm/drivers.h"

#define VTPM_NODE "util-vm/vtpm-uuid"

/* ---- what the libraries say ---- */

static __thread char last_words[200];

static void __attribute__((format(printf, 5, 0)))
on_message(xentoollog_logger *from, xentoollog_level level, int errnoval, const char *context,
	   const char *format, va_list al)
{
	char line[512];

	(void)from;
	vsnprintf(line, sizeof(line), format, al);
	line[strcspn(line, "\n")] = '\0';
	if (level >= XTL_ERROR) {
		const char *why = errnoval >= 0 ? strerror(errnoval) : "";

		snprintf(last_words, sizeof(last_words), "%.150s%s%.40s", line, *why ? ": " : "", why);
	}
	log_trace("%s: %s", context ? context : "xen", line);
}

static void on_progress(xentoollog_logger *from, const char *context, const char *doing, int percent,
			unsigned long done, unsigned long total)
{
	(void)from, (void)context, (void)doing, (void)percent, (void)done, (void)total;
}

static void on_destroy(xentoollog_logger *from)
{
	(void)from;
}

static xentoollog_logger logger = {on_message, on_progress, on_destroy};

int xen_error(struct err *err, int code, const char *fmt, ...)
{
	char text[200];
	va_list al;

	va_start(al, fmt);
	vsnprintf(text, sizeof(text), fmt, al);
	va_end(al);
	err_set(err, code, "%s%s%s", text, *last_words ? ": " : "", last_words);
	*last_words = '\0';
	return code;
}

/* ---- contexts ---- */

static bool xen_here(void)
{
	return !access("/dev/xen/privcmd", F_OK) || !access("/proc/xen/privcmd", F_OK);
}

libxl_ctx *xen_ctx_new(struct err *err)
{
	static const libxl_childproc_hooks hooks = {
		.chldowner = libxl_sigchld_owner_libxl_always_selective_reap};
	libxl_ctx *ctx = NULL;

	if (!xen_here())
		err_set(err, -ENODEV, "open Xen: this is no Xen host (dom0)");
	else if (libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger))
		xen_error(err, geteuid() ? -EACCES : -ENODEV, "open Xen");
	else
		libxl_childproc_setmode(ctx, &hooks, NULL); /* never again: it may have children then */
	return ctx;
}

libxl_ctx *xen_ctx(struct err *err)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	static libxl_ctx *ctx;

	pthread_mutex_lock(&once);
	if (!ctx)
		ctx = xen_ctx_new(err);
	pthread_mutex_unlock(&once);
	return ctx;
}

xc_interface *xen_control(struct err *err)
{
	xc_interface *xch = xc_interface_open(&logger, &logger, 0);

	if (!xch)
		xen_error(err, geteuid() ? -EACCES : -ENODEV, "open Xen's control interface");
	return xch;
}

/* ---- frames ---- */

int xen_page_types(xc_interface *xch, uint32_t domid, xen_pfn_t *frame, unsigned n, struct err *err)
{
	struct xen_domctl op = {.cmd = XEN_DOMCTL_getpageframeinfo3, .domain = (domid_t)domid};
	DECLARE_HYPERCALL_BUFFER(xen_pfn_t, list);
	int rc;

	list = xc_hypercall_buffer_alloc(xch, list, n * sizeof(*list));
	if (!list)
		return xen_error(err, -ENOMEM, "read page types of domain %u", domid);
	memcpy(list, frame, n * sizeof(*list));
	op.u.getpageframeinfo3.num = n;
	set_xen_guest_handle_raw(op.u.getpageframeinfo3.array, list);
	rc = xc_domctl(xch, &op);
	memcpy(frame, list, n * sizeof(*list));
	xc_hypercall_buffer_free(xch, list);
	return rc ? xen_error(err, -EIO, "read page types of domain %u", domid) : 0;
}

bool xen_page_exists(uint32_t type)
{
	return type != XEN_DOMCTL_PFINFO_XTAB && type != XEN_DOMCTL_PFINFO_BROKEN;
}

bool xen_page_has_data(uint32_t type)
{
	return xen_page_exists(type) && type != XEN_DOMCTL_PFINFO_XALLOC;
}

/* Frames @from … of one question; how many there are, or -EIO. */
static int look_at(xc_interface *xch, uint32_t domid, uint64_t from, uint64_t frames, uint64_t *there,
		   struct err *err)
{
	unsigned n = frames - from < XEN_TYPES_MAX ? (unsigned)(frames - from) : XEN_TYPES_MAX;
	xen_pfn_t type[XEN_TYPES_MAX];
	int found = 0, rc;

	for (unsigned i = 0; i < n; i++)
		type[i] = from + i;
	rc = xen_page_types(xch, domid, type, n, err);
	for (unsigned i = 0; !rc && i < n; i++)
		if (xen_page_exists((uint32_t)type[i])) {
			there[(from + i) / 64] |= 1ull << (from + i) % 64;
			found++;
		}
	return rc ? rc : found;
}

int xen_frames(xc_interface *xch, uint32_t domid, uint64_t frames, uint64_t *there, struct err *err)
{
	uint64_t low = 0, high = (frames + XEN_TYPES_MAX - 1) / XEN_TYPES_MAX, found = 0, own;
	libxl_ctx *ctx = xen_ctx(err);
	libxl_dominfo info;
	bool up = true;

	libxl_dominfo_init(&info);
	if (!ctx || libxl_domain_info(ctx, &info, domid))
		return xen_error(err, -ESRCH, "ask for domain %u", domid);
	own = info.current_memkb / 4;
	libxl_dominfo_dispose(&info);
	while (low < high && found < own) {
		int n = look_at(xch, domid, (up ? low++ : --high) * XEN_TYPES_MAX, frames, there, err);

		if (n < 0)
			return n;
		found += (unsigned)n;
		if (!n)
			up = !up; /* a hole: go on at the other end */
	}
	return 0;
}

/* ---- domains ---- */

void xen_uuid_text(const libxl_uuid *uuid, char text[37])
{
	snprintf(text, 37, LIBXL_UUID_FMT, LIBXL_UUID_BYTES((*uuid)));
}

uint32_t xen_find_uuid(libxl_ctx *ctx, const char *uuid)
{
	uint32_t domid = UINT32_MAX;
	int n = 0;
	libxl_dominfo *all = libxl_list_domain(ctx, &n);
	char text[37];

	for (int i = 0; i < n; i++) {
		xen_uuid_text(&all[i].uuid, text);
		if (!strcasecmp(text, uuid))
			domid = all[i].domid;
	}
	libxl_dominfo_list_free(all, n);
	return domid;
}

static int node_path(libxl_ctx *ctx, uint32_t domid, char *path, size_t size, struct err *err)
{
	libxl_dominfo info;
	char uuid[37];

	libxl_dominfo_init(&info);
	if (libxl_domain_info(ctx, &info, domid))
		return xen_error(err, -ENOENT, "ask domain %u", domid);
	xen_uuid_text(&info.uuid, uuid);
	libxl_dominfo_dispose(&info);
	snprintf(path, size, "/vm/%s/" VTPM_NODE, uuid);
	return 0;
}

static int configured_vtpm(libxl_ctx *ctx, uint32_t domid, char uuid[37], struct err *err)
{
	struct xs_handle *xs = xs_open(0);
	char path[100], *value;
	unsigned n = 0;
	int rc = node_path(ctx, domid, path, sizeof(path), err);

	if (!rc && !xs)
		rc = err_sys(err, -errno, "open xenstore");
	value = rc ? NULL : xs_read(xs, XBT_NULL, path, &n);
	if (value && n == 36)
		snprintf(uuid, 37, "%s", value);
	free(value);
	if (xs)
		xs_close(xs);
	return rc;
}

int xen_bind_vtpm(libxl_ctx *ctx, uint32_t domid, const char *uuid, struct err *err)
{
	struct xs_handle *xs = xs_open(0);
	char path[100];
	int rc = node_path(ctx, domid, path, sizeof(path), err);

	if (!rc && (!xs || !xs_write(xs, XBT_NULL, path, uuid, (unsigned)strlen(uuid))))
		rc = err_sys(err, -errno, "write %s to xenstore", path);
	if (xs)
		xs_close(xs);
	return rc;
}

/* libxl_device_vtpm_list leaves the uuid unset where the backend's node is not there. */
static int agreed_vtpm(libxl_ctx *ctx, uint32_t domid, libxl_device_vtpm *vtpm, char uuid[37],
		       struct err *err)
{
	libxl_vtpminfo info;
	char listed[37];
	int rc = 0;

	libxl_vtpminfo_init(&info);
	if (libxl_device_vtpm_getinfo(ctx, domid, vtpm, &info)) {
		rc = xen_error(err, -EXDEV, "ask for the vTPM of domain %u", domid);
	} else {
		xen_uuid_text(&info.uuid, uuid);
		xen_uuid_text(&vtpm->uuid, listed);
		if (strcmp(uuid, listed) != 0)
			rc = err_set(err, -EXDEV, "check vTPM of domain %u: it is %s by its backend, and %s "
				     "by the list", domid, uuid, listed);
	}
	libxl_vtpminfo_dispose(&info);
	return rc;
}

int xen_vtpm_of(libxl_ctx *ctx, uint32_t domid, char uuid[37], struct err *err)
{
	int n = 0, rc;
	libxl_device_vtpm *list = libxl_device_vtpm_list(ctx, domid, &n);

	uuid[0] = '\0';
	if (n > 1)
		rc = err_set(err, -EXDEV, "check vTPM of domain %u: it has %d", domid, n);
	else if (n == 1)
		rc = agreed_vtpm(ctx, domid, list, uuid, err);
	else
		rc = configured_vtpm(ctx, domid, uuid, err);
	libxl_device_vtpm_list_free(list, n);
	return rc;
}

/* ---- the target driver ---- */

static const char *state_of(const libxl_dominfo *info)
{
	if (info->shutdown || info->dying)
		return "shutdown";
	return info->paused ? "paused" : "running";
}

static int describe(libxl_ctx *ctx, uint32_t domid, struct vm *vm, struct err *err)
{
	libxl_dominfo info;
	char *name;

	libxl_dominfo_init(&info);
	if (libxl_domain_info(ctx, &info, domid))
		return xen_error(err, -ENOENT, "find domain %u", domid);
	name = libxl_domid_to_name(ctx, domid);
	snprintf(vm->name, sizeof(vm->name), "%s", name ? name : "");
	free(name);
	xen_uuid_text(&info.uuid, vm->uuid);
	vm->domid = domid;
	vm->mem_bytes = info.max_memkb << 10;
	snprintf(vm->state, sizeof(vm->state), "%s", state_of(&info));
	libxl_dominfo_dispose(&info);
	return 0;
}

static int xen_find(const char *name, struct vm *vm, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	uint32_t domid;
	char *end;

	if (!ctx)
		return err ? err->code : -ENODEV;
	domid = (uint32_t)strtoul(name, &end, 10);
	if (*end && libxl_name_to_domid(ctx, name, &domid)) {
		domid = xen_find_uuid(ctx, name);
		if (domid == UINT32_MAX)
			return err_set(err, -ENOENT, "find domain %s: none has this name, number or uuid", name);
	}
	if (!domid)
		return err_set(err, -EINVAL, "find domain %s: it is the host itself", name);
	return describe(ctx, domid, vm, err);
}

static int xen_lookup(const char *name, struct vm *vm, struct err *err)
{
	libxl_ctx *ctx = xen_here() ? xen_ctx(NULL) : NULL;
	uint32_t domid;

	if (!ctx || libxl_name_to_domid(ctx, name, &domid) || !domid)
		return 0;
	return describe(ctx, domid, vm, err) ? 0 : 1;
}

const struct vm_driver vm_driver_xen = {
	.prefix = "xen", .what = "a domain of Xen", .find = xen_find, .lookup = xen_lookup,
	.vcpus = &xen_vcpu_ops, .ondemand = &xen_ondemand_ops};
#endif
