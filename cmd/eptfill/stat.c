/* SPDX-License-Identifier: MIT */
/* stat: how far the memory of a VM is mapped, and what may undo it. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "eptfill.h"
#include "ondemand.h"

#define NODES_MAX 64

/* Pages of RAM by node: "N0=123" of /proc/PID/numa_maps, in pages of kernelpagesize_kB. */
static void read_nodes(const struct target *t, uint64_t *bytes)
{
	char path[64], line[1024];
	FILE *f;

	memset(bytes, 0, NODES_MAX * sizeof(*bytes));
	snprintf(path, sizeof(path), "/proc/%d/numa_maps", (int)t->vm.pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		uint64_t start = strtoull(line, NULL, 16), page = 4096;
		const struct vm_mapping *v = vm_mapping_at(&t->mappings, start);
		bool ram = false;
		char *at;

		for (size_t i = 0; v && i < t->slots.n; i++)
			ram = ram || (t->slots.slot[i].hva >= v->start && t->slots.slot[i].hva < v->end);
		if (!ram)
			continue;
		at = strstr(line, "kernelpagesize_kB=");
		if (at)
			page = strtoull(at + 18, NULL, 10) << 10;
		for (at = strstr(line, " N"); at; at = strstr(at + 1, " N")) {
			unsigned node;
			unsigned long long pages;

			if (sscanf(at, " N%u=%llu", &node, &pages) == 2 && node < NODES_MAX)
				bytes[node] += pages * page;
		}
	}
	if (f)
		fclose(f);
}

static void thp_setting(char *buf, size_t size)
{
	char line[128] = "", *open, *close;
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");

	if (f && fgets(line, sizeof(line), f) && (open = strchr(line, '[')) &&
	    (close = strchr(open, ']'))) {
		*close = '\0';
		snprintf(buf, size, "%s", open + 1);
	} else {
		snprintf(buf, size, "none");
	}
	if (f)
		fclose(f);
}

static void stat_json(const struct target *t, const struct kvm_stats *s, bool counted)
{
	struct json_object *j = json_object_new_object(), *nodes = json_object_new_object();
	uint64_t by_node[NODES_MAX], total = target_mappable(t);
	char when[32], key[16], thp[32];

	add_str(j, "schema", "util-vm/eptfill/stat/1");
	add_str(j, "when", units_iso8601(units_realtime_us(), when, sizeof(when)));
	add_str(j, "target", t->vm.target);
	add_str(j, "name", t->vm.name);
	add_u64(j, "pid", (uint64_t)t->vm.pid);
	add_u64(j, "memory_bytes", t->vm.mem_bytes);
	add_u64(j, "ram_mapping_bytes", t->resident.size);
	add_u64(j, "resident_bytes", t->resident.rss);
	add_u64(j, "swapped_bytes", t->resident.swap);
	add_u64(j, "huge_bytes", t->resident.huge);
	add_u64(j, "ksm_bytes", t->resident.ksm);
	add_u64(j, "page_bytes", t->resident.page);
	add_bool(j, "hugetlb", t->resident.hugetlb);
	add_bool(j, "mergeable", t->resident.mergeable);
	add_u64(j, "slots", t->guessed ? UINT64_MAX : t->slots.n);
	add_u64(j, "slots_bytes", total);
	add_bool(j, "kvm", t->has_kvm);
	if (counted) {
		add_u64(j, "pages_4k", s->pages_4k);
		add_u64(j, "pages_2m", s->pages_2m);
		add_u64(j, "pages_1g", s->pages_1g);
		add_u64(j, "mapped_bytes", kvm_mapped_bytes(s));
		add_percent(j, "coverage_percent", coverage(kvm_mapped_bytes(s), total));
		add_u64(j, "pf_taken", s->pf_taken);
		add_u64(j, "pf_fixed", s->pf_fixed);
		add_u64(j, "pf_emulate", s->pf_emulate);
		add_u64(j, "exits", s->exits);
	}
	if (t->has_state) {
		add_u64(j, "balloon_bytes", t->state.balloon_bytes);
		add_bool(j, "free_page_reporting", t->state.free_page_reporting);
		add_bool(j, "migrating", t->state.migrating);
	}
	thp_setting(thp, sizeof(thp));
	add_str(j, "thp", thp);
	read_nodes(t, by_node);
	for (unsigned i = 0; i < NODES_MAX; i++)
		if (by_node[i]) {
			snprintf(key, sizeof(key), "%u", i);
			add_u64(nodes, key, by_node[i]);
		}
	json_object_object_add(j, "node_bytes", nodes);
	print_json(j);
}

static void line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("  %-14s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void host_lines(const struct target *t)
{
	char a[32], b[32], c[32], thp[32];
	uint64_t by_node[NODES_MAX];

	line("resident", "%s of %s, %s pages%s", units_format_size(t->resident.rss, a, sizeof(a)),
	     units_format_size(t->resident.size, b, sizeof(b)),
	     units_format_size(t->resident.page, c, sizeof(c)), t->resident.hugetlb ? " (hugetlb)" : "");
	thp_setting(thp, sizeof(thp));
	line("huge", "%s by THP (%s)", units_format_size(t->resident.huge, a, sizeof(a)), thp);
	if (t->resident.swap)
		line("swapped", "%s", units_format_size(t->resident.swap, a, sizeof(a)));
	if (t->resident.ksm || t->resident.mergeable)
		line("ksm", "%s merged%s", units_format_size(t->resident.ksm, a, sizeof(a)),
		     t->resident.mergeable ? ", may be merged" : "");
	read_nodes(t, by_node);
	for (unsigned i = 0; i < NODES_MAX; i++)
		if (by_node[i])
			line("node", "%u: %s", i, units_format_size(by_node[i], a, sizeof(a)));
}

static void second_lines(const struct target *t, const struct kvm_stats *s)
{
	uint64_t total = target_mappable(t), mapped = kvm_mapped_bytes(s);
	unsigned cover = coverage(mapped, total);
	char a[32], b[32];

	line("second level", "%u.%02u %%: %s of %s", cover / 100, cover % 100,
	     units_format_size(mapped, a, sizeof(a)), units_format_size(total, b, sizeof(b)));
	line("pages", "%llu of 4K, %llu of 2M, %llu of 1G", (unsigned long long)s->pages_4k,
	     (unsigned long long)s->pages_2m, (unsigned long long)s->pages_1g);
	line("violations", "%llu taken, %llu fixed", (unsigned long long)s->pf_taken,
	     (unsigned long long)s->pf_fixed);
}

static void stat_text(const struct target *t, const struct kvm_stats *s, bool counted)
{
	char a[32], b[32];

	printf("%s pid %d %s\n", target_label(t), (int)t->vm.pid, t->vm.state);
	if (t->guessed)
		line("memory", "%s by its size, %zu mappings", units_format_size(t->vm.mem_bytes, a, sizeof(a)),
		     t->slots.n);
	else
		line("memory", "%s, %s in %zu memslots", units_format_size(t->vm.mem_bytes, a, sizeof(a)),
		     units_format_size(target_mappable(t), b, sizeof(b)), t->slots.n);
	host_lines(t);
	if (!t->has_kvm)
		line("second level", "none: the VM is emulated");
	else if (counted)
		second_lines(t, s);
	else
		line("second level", "not known");
	if (t->has_state)
		line("balloon", "%s%s%s",
		     t->state.balloon ? units_format_size(t->state.balloon_bytes, a, sizeof(a)) : "none",
		     t->state.free_page_reporting ? ", free pages are reported" : "",
		     t->state.migrating ? "; it migrates" : "");
}

static int stat_one(const char *name)
{
	struct kvm_stats s;
	struct err err = {0};
	struct target t;
	int rc = target_open(name, &t, &err);
	bool counted = false;

	if (rc)
		return refusal(&err, rc);
	if (t.has_kvm) {
		rc = target_counters(&t, &s, &err);
		counted = !rc;
		if (rc)
			log_warn("%s", err.text);
	}
	if (eptfill_opts.json)
		stat_json(&t, &s, counted);
	else
		stat_text(&t, &s, counted);
	fflush(stdout);
	target_close(&t);
	return EXIT_DONE;
}

int eptfill_stat(int argc, char **argv)
{
	int status = EXIT_DONE;
	struct vm vm;

	if (!argc)
		return cli_usage_error("stat: a target is missing (NAME, pid:N or qmp:PATH)");
	catch_signals();
	do {
		for (int i = 0; i < argc && !signal_seen(); i++) {
			int one = ondemand_vm(argv[i], &vm) ? ondemand_stat(&vm) : stat_one(argv[i]);

			status = one > status ? one : status;
		}
		if (!eptfill_opts.again_us || ferror(stdout))
			break;
		poll(NULL, 0, (int)(eptfill_opts.again_us / 1000));
	} while (!signal_seen() && status < EXIT_REFUSED);
	return signal_seen() ? EXIT_SIGNAL + signal_seen() : status;
}
