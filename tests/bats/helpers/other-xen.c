/* SPDX-License-Identifier: MIT */
/* LD_PRELOAD: the host's Xen is one minor version older, for who asks libxl. */
#include <dlfcn.h>
#include <libxl.h>
#include <libxl_utils.h>

const libxl_version_info *libxl_get_version_info(libxl_ctx *ctx)
{
	static libxl_version_info other;
	const libxl_version_info *(*real)(libxl_ctx *) =
		(const libxl_version_info *(*)(libxl_ctx *))dlsym(RTLD_NEXT, "libxl_get_version_info");

	other = *real(ctx);
	other.xen_version_minor--;
	return &other;
}
