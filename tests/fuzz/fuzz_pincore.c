/* SPDX-License-Identifier: MIT */
/* What pincore reads: a record to undo by (JSON lines), a thread's line of /proc, numa_maps, CPU lists. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../cmd/pincore/pincore.h"
#include "../../cmd/pincore/record.h"
#include "vm/numa.h"
#include "vm/threads.h"

struct pin_opts pin_opts;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_record(char *text)
{
	struct json_object *entries = json_object_new_array();
	struct record r;
	int rc;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		struct json_object *o = json_tokener_parse(line);

		if (o)
			json_object_array_add(entries, o);
	}
	rc = record_parse(entries, &r, NULL);
	if (rc ? rc != -EBADMSG : !r.pid)
		abort();
	/* Root writes below these. */
	if (!rc && *r.partition.cgroup)
		if (strncmp(r.partition.cgroup, "/pincore-", 9) || strstr(r.partition.home, "/../"))
			abort();
	if (!rc)
		record_free(&r);
	json_object_put(entries);
}

static void try_lists(const char *text)
{
	char out[CPU_SETSIZE * 5];
	struct cpus c, back;

	if (plan_cpus_parse(text, &c))
		return;
	plan_cpus_format(&c, out, sizeof(out));
	if (!c.n || plan_cpus_parse(out, &back) || memcmp(c.cpu, back.cpu, c.n * sizeof(*c.cpu)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t bytes[TOPOLOGY_NODES] = {0};
	struct vm_thread t = {0};
	char *text = malloc(size + 1);
	int rc;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	rc = vm_thread_parse(text, &t);
	if (rc ? rc != -EBADMSG && rc != -ESRCH : t.tid < 1 || memchr(t.name, '\0', sizeof(t.name)) == NULL)
		abort();
	vm_numa_line(text, bytes);
	try_lists(text);
	try_record(text);
	free(text);
	return 0;
}
