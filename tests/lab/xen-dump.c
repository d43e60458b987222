/* SPDX-License-Identifier: MIT */
/*
 * xen-dump DOMID FILE: the memory of a paused PVH domain, raw, for memcheck. Its RAM is one piece from
 * address 0 while it is below 3.75G; what is not there is left out as a hole.
 * 'xl dump-core' does it too, but asks for each of the million frames below 4G by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

enum { BATCH = 1024, PAGE = 4096 };

static int fail(const char *what)
{
	fprintf(stderr, "xen-dump: %s: %s\n", what, strerror(errno));
	return 4;
}

int main(int argc, char **argv)
{
	xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
	xc_interface *xch = xc_interface_open(NULL, NULL, 0);
	xc_dominfo_t info;
	uint32_t domid;
	int fd;

	if (argc != 3) {
		fputs("usage: xen-dump DOMID FILE\n", stderr);
		return 2;
	}
	domid = (uint32_t)atoi(argv[1]);
	if (!memory || !xch || xc_domain_getinfo(xch, domid, 1, &info) != 1 || info.domid != domid)
		return fail(argv[1]);
	fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(argv[2]);
	for (xen_pfn_t gfn = 0; gfn < info.nr_pages; gfn += BATCH) {
		size_t n = info.nr_pages - gfn < BATCH ? info.nr_pages - gfn : BATCH;
		xen_pfn_t gfns[BATCH];
		int errors[BATCH];
		char *map;

		for (size_t i = 0; i < n; i++)
			gfns[i] = gfn + i;
		map = xenforeignmemory_map(memory, domid, PROT_READ, n, gfns, errors);
		if (!map)
			return fail("map");
		for (size_t i = 0; i < n; i++)
			if (!errors[i] &&
			    pwrite(fd, map + i * PAGE, PAGE, (off_t)(gfns[i] * PAGE)) != PAGE)
				return fail(argv[2]);
		xenforeignmemory_unmap(memory, map, n);
	}
	return close(fd) ? fail(argv[2]) : 0;
}
