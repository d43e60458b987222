/* SPDX-License-Identifier: MIT */
/* A Xen domain as both sides of a move know it. */
#ifndef CUMP_XEN_H
#define CUMP_XEN_H

#ifdef HAVE_XEN
#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "pair/member.h"

struct xen_domain {
	uint32_t domid; /* UINT32_MAX: none (yet) */
	char uuid[37], name[64];
	bool pv;     /* its page tables are the hypervisor's: memory is not ours to copy */
	bool verify; /* compare the memory of both sides, page by page */
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
int xen_domain_destroy(const struct xen_domain *d, struct err *err); /* 0 also if it is gone */

/*
 * XXH3-128 over all its frames that have content and their numbers, less those that a restore writes (xenstore,
 * console, ioreq pages), as hex. -ENODATA unless d->verify (it reads all of its memory), and of PV domains, whose
 * frames get other numbers.
 */
int xen_domain_digest(const struct xen_domain *d, char hex[65], struct err *err);
#endif
#endif
