/* SPDX-License-Identifier: MIT */
/* The kinds of member: one file and one row each. */
#ifndef CUMP_DRIVERS_H
#define CUMP_DRIVERS_H

#include "pair/member.h"

extern const struct pair_source_ops qemu_source_ops;
extern const struct pair_sink_ops qemu_sink_ops;
extern const struct pair_source_ops swtpm_source_ops;
extern const struct pair_sink_ops swtpm_sink_ops;
#ifdef HAVE_XEN
extern const struct pair_source_ops xen_source_ops;
extern const struct pair_sink_ops xen_sink_ops;
#endif

/* By name, for journals and pair files; NULL: none of that name. */
const struct pair_driver *driver_find(const char *kind);

#endif
