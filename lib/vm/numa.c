/* SPDX-License-Identifier: MIT */
#include "vm/numa.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "7f… default anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4": pages are of the size at the end. A file's
 * name may hold anything but a blank, so that only whole words count. */
void vm_numa_line(const char *line, uint64_t bytes[TOPOLOGY_NODES])
{
	const char *size = strstr(line, " kernelpagesize_kB=");
	uint64_t page = size ? strtoull(size + 19, NULL, 10) << 10 : 0;

	for (const char *word = strchr(line, ' '); page && word; word = strchr(word + 1, ' ')) {
		char *end;
		unsigned long node;

		if (word[1] != 'N' || !isdigit((unsigned char)word[2]))
			continue;
		node = strtoul(word + 2, &end, 10);
		if (*end == '=' && node < TOPOLOGY_NODES)
			bytes[node] += strtoull(end + 1, NULL, 10) * page;
	}
}

int vm_numa_bytes(pid_t pid, uint64_t bytes[TOPOLOGY_NODES], struct err *err)
{
	char path[64], *line = NULL;
	size_t size = 0;
	int rc = 0;
	FILE *f;

	memset(bytes, 0, TOPOLOGY_NODES * sizeof(*bytes));
	snprintf(path, sizeof(path), "/proc/%d/numa_maps", (int)pid);
	f = fopen(path, "re");
	if (!f) {
		rc = errno == ENOENT ? -ENOTSUP : -errno;
		return err_sys(err, rc, "read %s", path);
	}
	while (getline(&line, &size, f) >= 0)
		vm_numa_line(line, bytes);
	if (ferror(f))
		rc = err_sys(err, -errno, "read %s", path);
	free(line);
	fclose(f);
	return rc;
}
