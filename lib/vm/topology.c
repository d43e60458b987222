/* SPDX-License-Identifier: MIT */
#include "vm/topology.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"

#define CACHES 16 /* index0 … of a CPU */

static int __attribute__((format(printf, 3, 4)))
read_text(char *buf, size_t size, const char *fmt, ...)
{
	char path[512];
	va_list ap;
	ssize_t n;
	int fd;

	va_start(ap, fmt);
	n = vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	*buf = '\0';
	if (n >= (ssize_t)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return n < 0 ? (int)n : 0;
}

/* An empty list is an empty set; one that is no list, too. */
static int parse_list(const char *text, cpu_set_t *set)
{
	if (units_cpulist(text, set))
		CPU_ZERO(set);
	return CPU_COUNT(set);
}

static int lowest(const cpu_set_t *set, int otherwise)
{
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, set))
			return c;
	return otherwise;
}

static int lowest_in(const char *root, int cpu, const char *file, int otherwise)
{
	char text[UNITS_CPULIST_MAX];
	cpu_set_t set;

	if (read_text(text, sizeof(text), "%s/sys/devices/system/cpu/cpu%d/%s", root, cpu, file) ||
	    !parse_list(text, &set))
		return otherwise;
	return lowest(&set, otherwise);
}

/* The cache of the highest level; without one, the package is the best guess. */
static int llc_of(const char *root, int cpu)
{
	int best = 0, llc = -1;

	for (int i = 0; i < CACHES; i++) {
		char text[32], list[64];
		int level;

		if (read_text(text, sizeof(text), "%s/sys/devices/system/cpu/cpu%d/cache/index%d/level",
			      root, cpu, i))
			break;
		level = (int)strtol(text, NULL, 10);
		snprintf(list, sizeof(list), "cache/index%d/shared_cpu_list", i);
		if (level > best) {
			best = level;
			llc = lowest_in(root, cpu, list, cpu);
		}
	}
	if (best >= 2)
		return llc;
	return lowest_in(root, cpu, "topology/core_siblings_list", cpu);
}

static void read_distances(const char *root, struct topology *t, int node)
{
	char text[TOPOLOGY_NODES * 5], *at = text;

	if (read_text(text, sizeof(text), "%s/sys/devices/system/node/node%d/distance", root, node))
		return;
	/* One figure for each node on line, in order. */
	for (int other = 0; other < TOPOLOGY_NODES; other++) {
		char *end;
		unsigned long d;

		if (!CPU_ISSET(other, &t->nodes))
			continue;
		d = strtoul(at, &end, 10);
		if (end == at || d > 255)
			return;
		t->distance[node][other] = (unsigned)d;
		at = end;
	}
}

static void read_nodes(const char *root, struct topology *t)
{
	char text[UNITS_CPULIST_MAX];

	CPU_ZERO(&t->nodes);
	if (!read_text(text, sizeof(text), "%s/sys/devices/system/node/online", root))
		parse_list(text, &t->nodes);
	for (int n = TOPOLOGY_NODES; n < CPU_SETSIZE; n++)
		CPU_CLR(n, &t->nodes);
	if (!CPU_COUNT(&t->nodes))
		CPU_SET(0, &t->nodes);
	for (int n = 0; n < TOPOLOGY_NODES; n++) {
		cpu_set_t cpus;

		for (int m = 0; m < TOPOLOGY_NODES; m++)
			t->distance[n][m] = n == m ? 10 : 20;
		if (!CPU_ISSET(n, &t->nodes))
			continue;
		read_distances(root, t, n);
		if (read_text(text, sizeof(text), "%s/sys/devices/system/node/node%d/cpulist", root, n))
			continue;
		parse_list(text, &cpus);
		for (int c = 0; c < CPU_SETSIZE; c++)
			if (CPU_ISSET(c, &cpus))
				t->cpu[c].node = n;
	}
}

int topology_read(const char *root, struct topology **out, struct err *err)
{
	struct topology *t = calloc(1, sizeof(*t));
	char text[UNITS_CPULIST_MAX];
	int rc;

	if (!t)
		return err_sys(err, -ENOMEM, "read the machine's CPUs");
	rc = read_text(text, sizeof(text), "%s/sys/devices/system/cpu/online", root);
	if (!rc && !parse_list(text, &t->online))
		rc = -EBADMSG;
	if (rc) {
		free(t);
		return err_sys(err, rc, "read %s/sys/devices/system/cpu/online", root);
	}
	if (!read_text(text, sizeof(text), "%s/sys/devices/system/cpu/isolated", root))
		parse_list(text, &t->isolated);
	read_nodes(root, t);
	for (int c = 0; c < CPU_SETSIZE; c++) {
		if (!CPU_ISSET(c, &t->online))
			continue;
		t->cpu[c].core = lowest_in(root, c, "topology/thread_siblings_list", c);
		t->cpu[c].llc = llc_of(root, c);
	}
	*out = t;
	return 0;
}

int topology_cores(const struct topology *t, const cpu_set_t *set)
{
	cpu_set_t cores;

	CPU_ZERO(&cores);
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, set))
			CPU_SET(t->cpu[c].core, &cores);
	return CPU_COUNT(&cores);
}
