/* SPDX-License-Identifier: MIT */
/* A Xen domain as both sides of a move know it. */
#ifndef CUMP_XEN_H
#define CUMP_XEN_H

#ifdef HAVE_XEN
#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "pair/member.h"
#include "vm/xen.h"

struct xen_domain {
	uint32_t domid; /* UINT32_MAX: none (yet) */
	char uuid[37], name[64];
	bool pv;     /* its page tables are the hypervisor's: memory is not ours to copy */
};

/* By its uuid, which a crash of ours does not change. -ESRCH: there is none. */
int xen_domain_find(const char *uuid, struct xen_domain *d, struct err *err);
int xen_domain_identify(const struct xen_domain *d, bool is_vtpm, struct pair_identity *id,
			struct err *err);

/* Which Xen this is, "xen 4.17": the state of a domain is understood by the same version. */
void xen_platform(char text[32]);

/* Can it be moved while it runs, or at least (@offline) while it is suspended? -ENOTSUP with the reason. */
int xen_domain_movable(const struct xen_domain *d, bool offline, struct err *err);

bool xen_domain_alive(const struct xen_domain *d);
bool xen_domain_runs(const struct xen_domain *d);
bool xen_domain_suspended(const struct xen_domain *d); /* by itself, when it was asked to */
int xen_domain_start(xc_interface *xch, const struct xen_domain *d, struct err *err); /* paused; 0 also if it runs */
int xen_domain_destroy(const struct xen_domain *d, struct err *err); /* 0 also if it is gone */

/*
 * What a stream has of a domain's frames, for --verify: XXH3-64 of each as it was last sent. Who is not the guest
 * may write to it and no dirty log tells: Xen to the page that it shares with the guest, a backend to a ring that it has
 * mapped. The guest makes both anew when it resumes, so Xen's own saver does not care; but pages are to be compared.
 */
struct xen_sent {
	uint64_t *hash; /* by frame number; the owner's */
	uint64_t frames;
	/* Such a page, as it is now: to be sent again. Digests are over what was sent. */
	int (*again)(void *ctx, uint64_t gfn, const void *data, struct err *err);
	void *ctx;
};
void xen_sent_note(struct xen_sent *sent, uint64_t gfn, const void *data);

/* Frames that a restore clears or hands out anew (Xen's xg_sr_restore_x86_hvm.c); 0: none. */
struct xen_special {
	uint64_t gfn[4];
};
void xen_special_of(xc_interface *xch, uint32_t domid, struct xen_special *special);
bool xen_is_special(const struct xen_special *special, uint64_t gfn);

/*
 * XXH3-128 over the numbers of all frames that have content and the XXH3-64 of each, less those that a restore
 * writes (struct xen_special), as hex. @sent NULL: of what is there. -ENODATA of PV domains, whose
 * frames get other numbers.
 */
int xen_domain_digest(const struct xen_domain *d, const struct xen_sent *sent, char hex[65], struct err *err);
#endif
#endif
