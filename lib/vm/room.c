/* SPDX-License-Identifier: MIT */
#include "vm/room.h"

#include <errno.h>
#include <inttypes.h>
#include <numa.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

/* Beyond the pages themselves: page tables of both levels (8 bytes in 4096 each), and some air. */
#define MARGIN(bytes) ((bytes) / 256 + (32ull << 20))

void room_add(struct room *r, bool refuse, const char *fmt, ...)
{
	struct room_finding *f;
	va_list ap;

	if (r->n >= ROOM_FINDINGS_MAX)
		return;
	f = &r->finding[r->n++];
	f->refuse = refuse;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

bool room_refuses(const struct room *r)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->finding[i].refuse)
			return true;
	return false;
}

/* "MemAvailable:  123 kB", also behind "Node 0 ". */
uint64_t room_meminfo(const char *path, const char *field)
{
	FILE *f = fopen(path, "re");
	uint64_t bytes = 0;
	char line[160];

	while (f && !bytes && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, field);

		if (at && (at == line || at[-1] == ' '))
			bytes = strtoull(at + strlen(field), NULL, 10) << 10;
	}
	if (f)
		fclose(f);
	return bytes;
}

static int read_u64(const char *path, uint64_t *value)
{
	char text[64], *end;
	FILE *f = fopen(path, "re");

	if (!f)
		return -errno;
	if (!fgets(text, sizeof(text), f))
		*text = '\0';
	fclose(f);
	errno = 0;
	*value = strtoull(text, &end, 10);
	if (end == text || errno)
		return -ENODATA; /* "max" */
	return 0;
}

static void narrow(struct room *r, uint64_t bytes)
{
	if (bytes < r->available_bytes)
		r->available_bytes = bytes;
}

static void check_host(struct room *r, uint64_t bytes)
{
	uint64_t free = room_meminfo("/proc/meminfo", "MemAvailable:");
	char have[32], want[32];

	narrow(r, free);
	if (bytes && free < bytes + MARGIN(bytes))
		room_add(r, true, "host memory: %s more are needed, %s are available",
			 units_format_size(bytes + MARGIN(bytes), want, sizeof(want)),
			 units_format_size(free, have, sizeof(have)));
}

/* File pages that are not in use can be dropped; the kernel does before it kills. */
static uint64_t droppable(const char *group)
{
	char path[4300], line[128];
	uint64_t bytes = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", group);
	f = fopen(path, "re");
	while (f && !bytes && fgets(line, sizeof(line), f))
		if (!strncmp(line, "inactive_file ", 14))
			bytes = strtoull(line + 14, NULL, 10);
	if (f)
		fclose(f);
	return bytes;
}

static void check_group(struct room *r, const char *group, const char *limit_file,
			const char *usage_file, uint64_t bytes)
{
	char path[4300], have[32], want[32];
	uint64_t limit, usage, left;

	snprintf(path, sizeof(path), "%s/%s", group, usage_file);
	if (read_u64(path, &usage))
		return;
	snprintf(path, sizeof(path), "%s/%s", group, limit_file);
	if (read_u64(path, &limit) || limit > 1ull << 60)
		return;
	left = limit > usage ? limit - usage : 0;
	left += droppable(group);
	narrow(r, left);
	if (bytes && left < bytes + MARGIN(bytes))
		room_add(r, true, "control group %.80s: %s more are needed, %s leaves %s", group,
			 units_format_size(bytes + MARGIN(bytes), want, sizeof(want)), limit_file,
			 units_format_size(left, have, sizeof(have)));
}

static void check_up(struct room *r, const char *root, const char *below, bool v2, uint64_t bytes)
{
	char group[4200];

	snprintf(group, sizeof(group), "%s%s", root, below);
	while (strlen(group) > strlen(root)) {
		check_group(r, group, v2 ? "memory.max" : "memory.limit_in_bytes",
			    v2 ? "memory.current" : "memory.usage_in_bytes", bytes);
		*strrchr(group, '/') = '\0';
	}
}

static void check_groups(struct room *r, pid_t pid, uint64_t bytes)
{
	char path[64], line[4200];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *below = strrchr(line, ':');

		line[strcspn(line, "\n")] = '\0';
		if (!below || strstr(below, "/.."))
			continue; /* outside of what this namespace shows */
		if (!strncmp(line, "0::", 3))
			check_up(r, "/sys/fs/cgroup", below + 1, true, bytes);
		else if (strstr(line, ":memory:"))
			check_up(r, "/sys/fs/cgroup/memory", below + 1, false, bytes);
	}
	if (f)
		fclose(f);
}

void room_check_memory(struct room *r, pid_t pid, uint64_t bytes)
{
	r->need_bytes = bytes;
	r->available_bytes = UINT64_MAX;
	check_host(r, bytes);
	check_groups(r, pid, bytes);
}

static void check_pool(struct room *r, uint64_t page, uint64_t bytes)
{
	char path[128], size[32];
	uint64_t free = 0;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/free_hugepages",
		 page >> 10);
	if (read_u64(path, &free) || free < (bytes + page - 1) / page)
		room_add(r, true, "pool of %s pages: %" PRIu64 " are needed, %" PRIu64 " are free (vm.nr_hugepages)",
			 units_format_size(page, size, sizeof(size)), (bytes + page - 1) / page, free);
}

/* "bind:0-1" of /proc/PID/numa_maps: what this mapping must come from. */
static void check_node_list(struct room *r, const char *nodes, uint64_t bytes)
{
	struct bitmask *mask = numa_parse_nodestring_all(nodes);
	char have[32], want[32], path[80];
	uint64_t sum = 0;

	for (int node = 0; mask && node <= numa_max_node(); node++) {
		long long free = 0;

		if (!numa_bitmask_isbitset(mask, (unsigned)node) || numa_node_size64(node, &free) < 0)
			continue;
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
		sum += (uint64_t)free + room_meminfo(path, "Inactive(file):");
	}
	if (mask && sum < bytes + MARGIN(bytes))
		room_add(r, true, "NUMA node %s, to which the VM's memory is bound: %s more are needed, %s are free",
			 nodes, units_format_size(bytes + MARGIN(bytes), want, sizeof(want)),
			 units_format_size(sum, have, sizeof(have)));
	if (mask) {
		narrow(r, sum);
		numa_free_nodemask(mask);
	}
}

static void check_nodes(struct room *r, pid_t pid, const struct vm_mapping *v, uint64_t bytes)
{
	char path[64], line[1024], policy[128];
	FILE *f;

	if (numa_available() < 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/numa_maps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		uint64_t at;

		if (sscanf(line, "%" SCNx64 " %127s", &at, policy) != 2 || at != v->start ||
		    strncmp(policy, "bind", 4) != 0 || !strchr(policy, ':'))
			continue;
		check_node_list(r, strchr(policy, ':') + 1, bytes);
	}
	if (f)
		fclose(f);
}

static uint64_t missing(const struct vm_mapping *v)
{
	uint64_t size = v->end - v->start;

	return v->rss < size ? size - v->rss : 0;
}

static bool is_ram(const struct vm_mapping *v, const struct vm_slots *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->slot[i].hva >= v->start && s->slot[i].hva < v->end && !s->slot[i].rom)
			return true;
	return false;
}

void room_check(struct room *r, pid_t pid, const struct vm_slots *slots,
		const struct vm_mappings *m)
{
	uint64_t plain = 0, ksm = 0;
	bool mergeable = false;

	for (const struct vm_mapping *v = m->map; v < m->map + m->n; v++) {
		if (!is_ram(v, slots))
			continue;
		mergeable = mergeable || v->mergeable;
		plain += v->hugetlb ? 0 : missing(v);
	}
	room_check_memory(r, pid, plain);
	for (const struct vm_mapping *v = m->map; v < m->map + m->n; v++) {
		if (!is_ram(v, slots) || !missing(v))
			continue;
		check_nodes(r, pid, v, missing(v));
		if (v->hugetlb)
			check_pool(r, v->page, missing(v));
	}
	if (mergeable && !read_u64("/sys/kernel/mm/ksm/run", &ksm) && ksm == 1)
		room_add(r, true, "KSM runs, and may merge this VM's pages: it would undo the fill (-machine "
				  "mem-merge=off, or echo 2 >/sys/kernel/mm/ksm/run)");
}
