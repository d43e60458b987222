/* SPDX-License-Identifier: MIT */
/* Xen's libraries, for the drivers that use them; only where the build has them (HAVE_XEN). */
#ifndef VM_XEN_H
#define VM_XEN_H

#ifdef HAVE_XEN
/* Their headers need each other in this order. */
#include <stdbool.h>
#include <libxl.h>
#include <libxl_utils.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xenguest.h>
#include <xen/hvm/params.h>

#include "base/err.h"

/*
 * The process's one libxl context, made at the first call; any thread may use it. NULL with @err
 * where no Xen runs (-ENODEV) or it may not be used (-EACCES). It reaps only its own children.
 */
libxl_ctx *xen_ctx(struct err *err);

/* One of the caller's own (libxl_ctx_free): what takes long holds up nobody else then. NULL with @err. */
libxl_ctx *xen_ctx_new(struct err *err);

/* An xc_interface of the caller's own (xc_interface_close), which logs where xen_ctx's does; NULL with @err. */
xc_interface *xen_control(struct err *err);

/*
 * Fill @err with the text, and behind it what Xen's libraries said last in this thread (its
 * errors are words on a log, not numbers); returns @code.
 */
int xen_error(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * The types of frames (XEN_DOMCTL_PFINFO_*), in place of their numbers; at most XEN_TYPES_MAX. One that is no RAM of
 * the domain's own (a hole, a page of the hypervisor's) is XTAB. -EIO. XEN_DOMCTL_getpageframeinfo3.
 */
#define XEN_TYPES_MAX 1024u
int xen_page_types(xc_interface *xch, uint32_t domid, xen_pfn_t *frame, unsigned n, struct err *err);

/* Whether pages of this type (XEN_DOMCTL_PFINFO_*) are there at all, and have content. */
bool xen_page_exists(uint32_t type);
bool xen_page_has_data(uint32_t type);

/*
 * Which of frames 0 … @frames - 1 the domain has, into @there (words of 64, all 0 before): RAM of its own, not holes. The
 * address space of a small domain is a gigabyte of RAM, a few pages below 4 GiB, and nothing else: it is looked
 * at from both ends, until as many were found as the domain owns.
 */
int xen_frames(xc_interface *xch, uint32_t domid, uint64_t frames, uint64_t *there, struct err *err);

/* A uuid as "xxxxxxxx-xxxx-…"; from text: -EINVAL. */
void xen_uuid_text(const libxl_uuid *uuid, char text[37]);

/*
 * Domains that are to suspend together. Opened before, so that the question is not kept waiting: -ENODEV, …; close
 * takes NULL too.
 */
#define XEN_SUSPEND_MAX 2
struct xen_suspend;
int xen_suspend_open(const uint32_t *domid, unsigned n, struct xen_suspend **out, struct err *err);
void xen_suspend_close(struct xen_suspend *s);

/*
 * Note in xenstore (/local/domain/N/util-vm/suspending, until close) that they are about to be asked; xen_suspend() does it
 * too, but then they wait for it.
 */
int xen_suspend_mark(struct xen_suspend *s, struct err *err);

struct xen_still {
	uint64_t when_us; /* CLOCK_REALTIME at which it was found to stand still */
	/*
	 * CLOCK_MONOTONIC from which on nothing of the guest ran but its way to a standstill: it had taken the question
	 * up, or was paused. That much later, if it ran on in between because all were asked again. 0: not known.
	 */
	uint64_t since_us;
};

/*
 * Ask them all, as libxl_domain_suspend_only would one, until all stand still or @timeout_ms has passed (-ETIMEDOUT: then
 * all run again; to see to that takes up to 20 s more). A guest may fail to: one that waits in its kernel for the
 * answer of another that stands still cannot be frozen. Then those that stand still run on for a moment, and all are
 * asked again; so they are, at most three times, where they stood still more than 5 ms apart. @still, one each. Who takes
 * the question up first is paused until the other does, at most 50 ms: if the caller dies then, it stays so.
 */
int xen_suspend(struct xen_suspend *s, struct xen_still *still, int timeout_ms, struct err *err);

/*
 * While xen_suspend() runs, Xen tells it alone that a domain has suspended, and nobody else (no VIRQ_DOM_EXC, so no
 * @releaseDomain), and a guest may not have taken up its question yet: if the caller died within it, this has all told
 * again, and takes the question back, before the guest runs on. One that has taken it up is waited for until it stands
 * still, at most 20 s, paused or not. Always harmless. XEN_DOMCTL_subscribe.
 */
void xen_suspend_forget(xc_interface *xch, uint32_t domid);

/* It has suspended itself; false if it runs, or was shut down or paused by others. */
bool xen_suspended(libxl_ctx *ctx, uint32_t domid);

/* The domain with this uuid (text), UINT32_MAX: none. */
uint32_t xen_find_uuid(libxl_ctx *ctx, const char *uuid);

/*
 * The uuid of the vTPM that domain @domid uses, "" if none: of its vtpm device (its backend's word and the list's must
 * agree, else -EXDEV), or, for a vTPM that is reached in another way, what the host's administrator wrote to xenstore
 * at /vm/UUID/util-vm/vtpm-uuid, which no guest can write.
 */
int xen_vtpm_of(libxl_ctx *ctx, uint32_t domid, char uuid[37], struct err *err);

/* Write that node, for a domain that came here. */
int xen_bind_vtpm(libxl_ctx *ctx, uint32_t domid, const char *uuid, struct err *err);

#endif
#endif
