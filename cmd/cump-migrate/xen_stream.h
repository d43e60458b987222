/* SPDX-License-Identifier: MIT */
/*
 * The stream of one Xen domain: what libxl_domain_create_restore takes (docs/specs/
 * libxl-migration-stream.pandoc, version 2, around libxc-migration-stream.pandoc, version 3), behind a
 * preface of ours, because a libxl stream does not carry the domain's configuration. For PVH domains, and HVM
 * ones without a device model: their frames map one to one.
 *
 * It ends when all memory was sent once: libxl then builds the domain, for which it needs longer than for all that
 * follows, while it still runs at the source. What follows is late: records as libxc's, of pages and of the
 * processors' last state, which the other side puts into the domain itself.
 */
#ifndef CUMP_XEN_STREAM_H
#define CUMP_XEN_STREAM_H

#ifdef HAVE_XEN
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"
#include "cump/engine.h"
#include "vm/xen.h"

#define XEN_PREFACE_MAX (1u << 20)

/* Our preface: magic, length, JSON {"config": libxl's JSON as an object, "vtpm": uuid of its vTPM, "late": bool}. */
struct xen_preface {
	char magic[8]; /* "UVMXEN01" */
	uint32_t length, reserved;
};
#define XEN_PREFACE_MAGIC "UVMXEN01"
_Static_assert(sizeof(struct xen_preface) == 16, "wire");

/* Into a buffer for the source's states; grows, never fails: xen_bytes_free says whether it did. */
struct xen_bytes {
	uint8_t *data;
	size_t size, room;
	bool failed;
};
int xen_bytes_free(struct xen_bytes *b); /* 0 or -ENOMEM */

/* The preface, all headers and the domain's CPU policy: what stands before its first page. */
int xen_put_head(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct json_object *preface,
		 struct err *err);
/* Around a stream that libxc writes itself (xc_domain_save): what stands before it, and behind it. */
void xen_put_opening(struct xen_bytes *b, struct json_object *preface);
void xen_put_closing(struct xen_bytes *b);

/* TSC, processors and devices, parameters, both ENDs: what stands behind its last page. The domain may run. */
int xen_put_end(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err);
/* TSC, processors and devices as they are when it stands still, END: behind the last late page. */
int xen_put_late_end(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err);

/* One PAGE_DATA record of @n ≤ CUMP_BATCH pages to @fd, a socket. -EPIPE, … */
int xen_write_pages(int fd, const struct cump_page *page, size_t n, struct err *err);
int xen_write(int fd, const void *data, size_t n, struct err *err);

struct xen_tsc {
	uint32_t mode, khz;
	uint64_t nsec;
	uint32_t incarnation;
};

/* What is done with what is late. */
struct xen_late_ops {
	/* Where the contents of @n ≤ CUMP_BATCH frames are to go, until unmap: @to[i], or NULL: nowhere. */
	int (*map)(void *ctx, const uint64_t *gfn, size_t n, void **to, struct err *err);
	void (*unmap)(void *ctx);
	int (*tsc)(void *ctx, const struct xen_tsc *tsc, struct err *err);
	int (*context)(void *ctx, uint8_t *data, uint32_t n, struct err *err);
};

/* Read late records from @fd to their END; nothing beyond it. *@bytes: how much that was. -EBADMSG, or what @ops say. */
int xen_read_late(int fd, const struct xen_late_ops *ops, void *ctx, uint64_t *bytes, struct err *err);

/*
 * The same into domain @domid, which libxl has built and nobody has started (xen_late.c). @maps is opened, and
 * the caller's to close when the domain does not wait for it.
 */
struct xen_maps;
int xen_take_late(int fd, uint32_t domid, const char *name, struct xen_maps *maps, uint64_t *bytes, struct err *err);

/* Read the preface from @fd; the rest is libxl's. Caller owns *@preface. -EBADMSG, -EMSGSIZE. */
int xen_read_preface(int fd, struct json_object **preface, struct err *err);

#endif
#endif
