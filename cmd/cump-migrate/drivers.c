/* SPDX-License-Identifier: MIT */
#include "drivers.h"

#include <string.h>

static const struct pair_driver drivers[] = {
	{"qemu", &qemu_source_ops, &qemu_sink_ops, false},
	{"swtpm", &swtpm_source_ops, &swtpm_sink_ops, false},
#ifdef HAVE_XEN
	{"xen", &xen_source_ops, &xen_sink_ops, true},
#endif
};

const struct pair_driver *driver_find(const char *kind)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
		if (!strcmp(drivers[i].kind, kind))
			return &drivers[i];
	return NULL;
}
