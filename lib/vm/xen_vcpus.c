/* SPDX-License-Identifier: MIT */
/* Xen: where a domain's vCPUs may run, and where they run if they can (xl vcpu-pin). */
#ifdef HAVE_XEN
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/drivers.h"
#include "vm/vcpus.h"
#include "vm/xen.h"

/* Beyond the host's own CPUs Xen says 1 for "all". */
static void to_set(const libxl_bitmap *map, int cpus, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (int i = 0; i < cpus && i < CPU_SETSIZE; i++)
		if (libxl_bitmap_test(map, i))
			CPU_SET(i, set);
}

static int list_vcpus(const struct vm *vm, struct vm_vcpu **list, size_t *n, cpu_set_t *cpus, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	libxl_vcpuinfo *info;
	int count = 0, host = 0;

	if (!ctx)
		return err ? err->code : -ENODEV;
	info = libxl_list_vcpu(ctx, vm->domid, &count, &host);
	if (!info)
		return xen_error(err, -ESRCH, "list the vCPUs of %s", vm->target);
	*list = calloc((size_t)count + 1, sizeof(**list));
	*n = *list ? (size_t)count : 0;
	for (size_t i = 0; i < *n; i++) {
		(*list)[i] = (struct vm_vcpu){.id = info[i].vcpuid, .online = info[i].online,
					      .cpu = info[i].online ? (int)info[i].cpu : -1};
		to_set(&info[i].cpumap, host, &(*list)[i].hard);
		to_set(&info[i].cpumap_soft, host, &(*list)[i].soft);
	}
	CPU_ZERO(cpus);
	for (int i = 0; i < host && i < CPU_SETSIZE; i++)
		CPU_SET(i, cpus);
	libxl_vcpuinfo_list_free(info, count);
	return *list ? 0 : err_sys(err, -ENOMEM, "list the vCPUs of %s", vm->target);
}

static void to_map(const cpu_set_t *set, libxl_bitmap *map)
{
	libxl_bitmap_set_none(map);
	for (int i = 0; i < CPU_SETSIZE && i < (int)map->size * 8; i++)
		if (CPU_ISSET(i, set))
			libxl_bitmap_set(map, i);
}

static int pin_vcpu(const struct vm *vm, unsigned vcpu, const cpu_set_t *hard, const cpu_set_t *soft,
		    struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	libxl_bitmap to[2];
	int rc = 0;

	if (!ctx)
		return err ? err->code : -ENODEV;
	libxl_bitmap_init(&to[0]);
	libxl_bitmap_init(&to[1]);
	if (libxl_cpu_bitmap_alloc(ctx, &to[0], 0) || libxl_cpu_bitmap_alloc(ctx, &to[1], 0)) {
		rc = xen_error(err, -ENOMEM, "pin vCPU %u of %s", vcpu, vm->target);
	} else {
		to_map(hard, &to[0]);
		to_map(soft, &to[1]);
		if (libxl_set_vcpuaffinity(ctx, vm->domid, vcpu, &to[0], &to[1]))
			rc = xen_error(err, -EINVAL, "pin vCPU %u of %s", vcpu, vm->target);
	}
	libxl_bitmap_dispose(&to[0]);
	libxl_bitmap_dispose(&to[1]);
	return rc;
}

const struct vm_vcpu_ops xen_vcpu_ops = {list_vcpus, pin_vcpu};
#endif
