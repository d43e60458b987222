/* SPDX-License-Identifier: MIT */
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vm/drivers.h"

/* Prefixes of drivers that are not in this build: they are refused, not taken for names. */
static const struct vm_driver libvirt = {.prefix = "libvirt", .what = "a domain of libvirt"};
#ifndef HAVE_XEN
static const struct vm_driver vm_driver_xen = {.prefix = "xen", .what = "a domain of Xen"};
#endif

static const struct vm_driver *const drivers[] = {
	&vm_driver_qmp, &vm_driver_pid, &libvirt, &vm_driver_xen, NULL,
};

static int find_by(const struct vm_driver *driver, const char *name, struct vm *vm,
		   struct err *err)
{
	if (!driver->find)
		return err_set(err, -ENOTSUP,
			       "%s:%s: this build does not know %s (name it by pid:N or qmp:PATH)",
			       driver->prefix, name, driver->what);
	if (!*name)
		return err_set(err, -EINVAL, "%s: needs the name of %s behind it", driver->prefix,
			       driver->what);
	vm->driver = driver;
	return driver->find(name, vm, err);
}

static int lookup_all(const char *name, struct vm *vm, struct err *err)
{
	struct vm found = *vm;
	int count = 0;

	for (const struct vm_driver *const *d = drivers; *d; d++) {
		int n;

		if (!(*d)->lookup)
			continue;
		n = (*d)->lookup(name, &found, err);
		if (n < 0)
			return n;
		if (n && !count) {
			*vm = found;
			vm->driver = *d;
		}
		count += n;
	}
	if (count == 1)
		return 0;
	if (count)
		return err_set(err, -EEXIST,
			       "%s: %d running VMs have this name (name one by pid:N or qmp:PATH)",
			       name, count);
	return err_set(err, -ENOENT, "%s: no running VM has this name (qmp:PATH and pid:N work as well)",
		       name);
}

int vm_find(const char *target, struct vm *vm, struct err *err)
{
	memset(vm, 0, sizeof(*vm));
	strcpy(vm->uuid, "00000000-0000-0000-0000-000000000000");
	if (!*target)
		return err_set(err, -EINVAL, "a target is missing (NAME, pid:N or qmp:PATH)");
	if (strlen(target) >= sizeof(vm->target))
		return err_set(err, -EINVAL, "%.40s…: the target has more than %zu bytes", target,
			       sizeof(vm->target) - 1);
	memcpy(vm->target, target, strlen(target));
	for (const struct vm_driver *const *d = drivers; *d; d++) {
		size_t n = strlen((*d)->prefix);

		if (!strncmp(target, (*d)->prefix, n) && target[n] == ':')
			return find_by(*d, target + n + 1, vm, err);
	}
	return lookup_all(target, vm, err);
}
