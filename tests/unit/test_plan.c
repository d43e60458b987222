/* SPDX-License-Identifier: MIT */
/* pincore's plans: machines made of files, and where auto puts a VM on them. */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"
#include "../../cmd/pincore/plan.h"
#include "../../cmd/pincore/record.h"
#include "vm/numa.h"
#include "vm/topology.h"

/* plan.h and record.h are pincore's own; its options live in main.c, which is not linked here. */
#include "../../cmd/pincore/pincore.h"
struct pin_opts pin_opts;

static char root[] = "/tmp/test_plan.XXXXXX";

static void __attribute__((format(printf, 2, 3))) put(const char *text, const char *fmt, ...)
{
	char path[512];
	va_list ap;
	FILE *f;
	int n;

	n = snprintf(path, sizeof(path), "%s/", root);
	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	va_end(ap);
	for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", text);
	fclose(f);
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void clear(void)
{
	nftw(root, drop, 16, FTW_DEPTH | FTW_PHYS);
	mkdir(root, 0755);
}

/* @nodes × @caches × @cores × @threads, the second threads numbered behind all first ones, as x86 does. */
static struct topology *machine(int nodes, int caches, int cores, int threads)
{
	int all_cores = nodes * caches * cores;
	struct topology *t;
	char text[200];

	clear();
	snprintf(text, sizeof(text), "0-%d", all_cores * threads - 1);
	put(text, "sys/devices/system/cpu/online");
	put("", "sys/devices/system/cpu/isolated");
	snprintf(text, sizeof(text), "0-%d", nodes - 1);
	put(nodes > 1 ? text : "0", "sys/devices/system/node/online");
	for (int c = 0; c < all_cores * threads; c++) {
		int core = c % all_cores, cache = core / cores, first = cache * cores;

		snprintf(text, sizeof(text), threads > 1 ? "%d,%d" : "%d", core, core + all_cores);
		put(text, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", c);
		put("1", "sys/devices/system/cpu/cpu%d/cache/index0/level", c);
		put(text, "sys/devices/system/cpu/cpu%d/cache/index0/shared_cpu_list", c);
		put("3", "sys/devices/system/cpu/cpu%d/cache/index1/level", c);
		if (threads > 1)
			snprintf(text, sizeof(text), "%d-%d,%d-%d", first, first + cores - 1, first + all_cores,
				 first + cores - 1 + all_cores);
		else
			snprintf(text, sizeof(text), "%d-%d", first, first + cores - 1);
		put(text, "sys/devices/system/cpu/cpu%d/cache/index1/shared_cpu_list", c);
	}
	for (int n = 0; n < nodes; n++) {
		int per = caches * cores;

		if (threads > 1)
			snprintf(text, sizeof(text), "%d-%d,%d-%d", n * per, n * per + per - 1, n * per + all_cores,
				 n * per + per - 1 + all_cores);
		else
			snprintf(text, sizeof(text), "%d-%d", n * per, n * per + per - 1);
		put(text, "sys/devices/system/node/node%d/cpulist", n);
		*text = '\0';
		for (int m = 0; m < nodes; m++)
			snprintf(text + strlen(text), 8, "%d ", m == n ? 10 : abs(m - n) == 1 ? 12 : 32);
		put(text, "sys/devices/system/node/node%d/distance", n);
	}
	assert_int_equal(topology_read(root, &t, NULL), 0);
	return t;
}

static void topologies(void **state)
{
	struct topology *t = machine(2, 2, 4, 2); /* 16 cores, 32 CPUs */
	struct err err = {0};

	(void)state;
	assert_int_equal(CPU_COUNT(&t->online), 32);
	assert_int_equal(CPU_COUNT(&t->isolated), 0);
	assert_int_equal(t->cpu[0].core, 0);
	assert_int_equal(t->cpu[16].core, 0);
	assert_int_equal(t->cpu[31].core, 15);
	assert_int_equal(t->cpu[5].llc, 4);
	assert_int_equal(t->cpu[21].llc, 4);
	assert_int_equal(t->cpu[7].node, 0);
	assert_int_equal(t->cpu[8].node, 1);
	assert_int_equal(t->cpu[24].node, 1);
	assert_int_equal(t->distance[0][0], 10);
	assert_int_equal(t->distance[1][0], 12);
	assert_int_equal(topology_cores(t, &t->online), 16);
	free(t);
	/* What a virtual machine or an old kernel does not tell. */
	clear();
	put("0-1,3", "sys/devices/system/cpu/online");
	assert_int_equal(topology_read(root, &t, &err), 0);
	assert_int_equal(CPU_COUNT(&t->online), 3);
	assert_int_equal(t->cpu[3].core, 3);
	assert_int_equal(t->cpu[3].llc, 3);
	assert_int_equal(t->cpu[3].node, 0);
	assert_int_equal(CPU_COUNT(&t->nodes), 1);
	free(t);
	put("rubbish", "sys/devices/system/cpu/online");
	assert_int_equal(topology_read(root, &t, &err), -EBADMSG);
	clear();
	assert_int_equal(topology_read(root, &t, &err), -ENOENT);
}

static struct plan_facts *facts(struct topology *t, unsigned vcpus)
{
	struct plan_facts *f = calloc(1, sizeof(*f));

	f->machine = t;
	f->usable = t->online;
	f->vcpus = vcpus;
	return f;
}

static void assert_plan(struct plan_facts *f, const char *vcpus, const char *iothreads, const char *emulator)
{
	const char *wanted[GROUPS] = {vcpus, iothreads, iothreads, emulator};
	struct plan_why why;
	struct plan p;
	char text[200];

	assert_int_equal(plan_auto(f, &p, &why, NULL), 0);
	for (int g = 0; g < GROUPS; g++)
		if (strcmp(plan_cpus_format(&p.group[g], text, sizeof(text)), wanted[g]) != 0)
			fail_msg("%s: %s, not %s (%s)", plan_group_name((enum group)g), text, wanted[g], why.line[3]);
	for (int i = 0; i < PLAN_WHY; i++)
		assert_true(*why.line[i]);
}

static void take(struct plan_facts *f, const char *list)
{
	assert_int_equal(units_cpulist(list, &f->taken), 0);
}

static void busy(struct plan_facts *f, int first, int last, unsigned short per_mille)
{
	for (int c = first; c <= last; c++)
		f->busy[c] = per_mille;
}

static void auto_plans(void **state)
{
	struct topology *t = machine(2, 2, 4, 2); /* caches: 0-3, 4-7 | 8-11, 12-15, and 16 more of each */
	struct plan_facts *f = facts(t, 2);

	(void)state;
	assert_plan(f, "0,1", "2", "2");
	f->node_bytes[1] = 1 << 30; /* near the memory */
	f->node_bytes[0] = 1 << 20;
	assert_plan(f, "8,9", "10", "10");
	take(f, "8"); /* half of core 8 has a pinned VM: it is no core of one's own any more */
	assert_plan(f, "9,10", "11", "11"); /* the smallest cache that has room */
	free(f);
	free(t);
}

static void auto_caches(void **state)
{
	struct topology *t = machine(2, 2, 4, 2);
	struct plan_facts *f = facts(t, 3);

	(void)state;
	assert_plan(f, "0-2", "3", "3");
	f->iothreads = 1; /* 3 vCPUs and the emulator fill the cache: the iothread shares the emulator's core */
	assert_plan(f, "0-2", "19", "3");
	f->vcpus = 4; /* no cache has 5 cores, but one has 4; the emulator is next door */
	f->iothreads = 0;
	assert_plan(f, "0-3", "4", "4");
	f->vcpus = 6;
	assert_plan(f, "0-5", "6", "6");
	f->vcpus = 12; /* more than the node's cores: both threads of a core rather than two nodes */
	assert_plan(f, "0,16,1,17,2,18,3,19,4,20,5,21", "6", "6");
	f->vcpus = 20; /* more than the node */
	f->busy[8] = 200;
	assert_plan(f, "0,16,1,17,2,18,3,19,4,20,5,21,6,22,7,23,9,25,10,26", "11", "11");
	free(f);
	free(t);
}

static void auto_loads(void **state)
{
	struct topology *t = machine(1, 2, 4, 1);
	struct plan_facts *f = facts(t, 2);

	(void)state;
	busy(f, 0, 3, 900); /* a busy cache is left for an idle one */
	assert_plan(f, "4,5", "6", "6");
	busy(f, 0, 7, 0);
	busy(f, 0, 0, 700); /* a busy core for its neighbours */
	assert_plan(f, "1,2", "3", "3");
	busy(f, 0, 7, 900); /* when all are busy, they are used all the same */
	assert_plan(f, "0,1", "2", "2");
	take(f, "0-7");
	assert_plan(f, "0,1", "2", "2");
	free(f);
	free(t);
}

static void auto_small(void **state)
{
	struct topology *t = machine(1, 1, 2, 1);
	struct plan_facts *f = facts(t, 1);
	struct plan_why why;
	struct plan p;

	(void)state;
	assert_plan(f, "0", "1", "1");
	f->vcpus = 2;
	assert_plan(f, "0,1", "1", "1");
	f->vcpus = 8;
	assert_plan(f, "0,1", "1", "1");
	CPU_ZERO(&f->usable);
	CPU_SET(1, &f->usable);
	assert_plan(f, "1", "1", "1");
	CPU_ZERO(&f->usable);
	assert_int_equal(plan_auto(f, &p, &why, NULL), -ENOSPC);
	free(f);
	free(t);
}

static void auto_isolated(void **state)
{
	struct topology *t = machine(1, 1, 4, 1);
	struct plan_facts *f = facts(t, 2);

	(void)state;
	assert_int_equal(units_cpulist("2-3", &t->isolated), 0);
	assert_plan(f, "2,3", "0", "0"); /* set apart for such as vCPUs; not for the emulator */
	free(f);
	free(t);
}

static void lists(void **state)
{
	static const char *const bad[] = {"", ",", "1,", "a", "3-1", "0,,1", "1-", "x-3"};
	struct cpus c;
	char text[64];

	(void)state;
	assert_int_equal(plan_cpus_parse("4,2,8-11,2", &c), 0);
	assert_int_equal(c.n, 6);
	assert_int_equal(c.cpu[0], 4);
	assert_int_equal(c.cpu[1], 2);
	assert_string_equal(plan_cpus_format(&c, text, sizeof(text)), "4,2,8-11");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(plan_cpus_parse(bad[i], &c), -EINVAL);
	assert_int_equal(plan_cpus_parse("1024", &c), -ERANGE);
}

static int given(const struct plan *p, struct plan_use *u, enum group g)
{
	cpu_set_t mask;

	plan_mask(p, u, g, &mask);
	assert_int_equal(CPU_COUNT(&mask), 1);
	for (int c = 0;; c++)
		if (CPU_ISSET(c, &mask))
			return c;
}

static void masks(void **state)
{
	struct plan_use *u = calloc(1, sizeof(*u));
	struct plan p = {0};
	cpu_set_t mask;

	(void)state;
	plan_cpus_parse("4,2,3", &p.group[G_VCPU]);
	plan_cpus_parse("0,1", &p.group[G_EMULATOR]);
	assert_int_equal(given(&p, u, G_VCPU), 4);
	assert_int_equal(given(&p, u, G_VCPU), 2);
	assert_int_equal(given(&p, u, G_VCPU), 3);
	assert_int_equal(given(&p, u, G_VCPU), 4);
	assert_int_equal(given(&p, u, G_EMULATOR), 0);
	assert_int_equal(given(&p, u, G_EMULATOR), 1);
	u->n[G_EMULATOR][1] = 0; /* the one there has ended */
	assert_int_equal(given(&p, u, G_EMULATOR), 1);
	p.floating = true;
	plan_mask(&p, u, G_VCPU, &mask);
	assert_int_equal(CPU_COUNT(&mask), 3);
	free(u);
}

static void numa_lines(void **state)
{
	uint64_t b[TOPOLOGY_NODES] = {0};

	(void)state;
	vm_numa_line("7f00 default anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4\n", b);
	vm_numa_line("7f00 bind:1 huge anon=3 N1=3 kernelpagesize_kB=2048\n", b);
	vm_numa_line("7f00 default file=/N3=9 N99=4 N=1 NX=2\n", b);
	vm_numa_line("7f00 default file=/x\\040N3=9 N0=1 kernelpagesize_kB=4\n", b);
	vm_numa_line("", b);
	assert_int_equal(b[0], 3 * 4096);
	assert_int_equal(b[1], 4096 + 3 * 2048 * 1024);
	assert_int_equal(b[3], 0);
}

static int parse(const char *text, struct record *r)
{
	struct json_object *o = json_tokener_parse(text);
	int rc = record_parse(o, r, NULL);

	json_object_put(o);
	return rc;
}

#define PINNING(more)                                                                          \
	"{\"state\":\"pinning\",\"pid\":7,\"starttime\":9,\"target\":\"web\",\"name\":\"web\",\"plan\":{\"vcpus\":\"3,1\"}," \
	"\"threads\":[{\"tid\":7,\"starttime\":9,\"role\":\"main\",\"before\":\"0-3\",\"pinned\":\"1\"}" more "]}"

static void records(void **state)
{
	static const char *const bad[] = {
		"[]", "{}", "3", "[{}]", "[{\"state\":\"pinned\"}]",
		"[{\"state\":\"pinning\",\"pid\":0,\"starttime\":9,\"plan\":{},\"threads\":[]}]",
		"[{\"state\":\"pinning\",\"pid\":-7,\"starttime\":9,\"plan\":{},\"threads\":[]}]",
		"[{\"state\":\"pinning\",\"pid\":7,\"plan\":{},\"threads\":[]}]",
		"[{\"state\":\"pinning\",\"pid\":7,\"starttime\":9,\"plan\":{\"vcpus\":\"x\"},\"threads\":[]}]",
		"[" PINNING(",{\"tid\":8}") "]",
		"[" PINNING(",{\"tid\":0,\"starttime\":1,\"role\":\"main\",\"before\":\"0\",\"pinned\":\"0\"}") "]",
		"[" PINNING(",{\"tid\":8,\"starttime\":1,\"role\":\"king\",\"before\":\"0\",\"pinned\":\"0\"}") "]",
		"[" PINNING(",{\"tid\":8,\"starttime\":1,\"role\":\"main\",\"before\":\"\",\"pinned\":\"0\"}") "]",
		/* Root writes to these paths. */
		"[" PINNING("") ",{\"state\":\"isolating\",\"partition\":{\"cgroup\":\"/pincore-7/../x\",\"home\":\"/\"}}]",
		"[" PINNING("") ",{\"state\":\"isolating\",\"partition\":{\"cgroup\":\"/user.slice\",\"home\":\"/\"}}]",
		"[" PINNING("") ",{\"state\":\"isolating\",\"partition\":{\"cgroup\":\"/pincore-7\",\"home\":\"/a/../../etc\"}}]",
		"[" PINNING("") ",{\"state\":\"irqs\",\"irqs\":[{\"irq\":\"x\",\"before\":\"0\"}]}]",
	};
	struct record r;
	cpu_set_t set;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (parse(bad[i], &r) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(parse("[" PINNING("") "," PINNING("") ",{\"state\":\"isolating\",\"partition\":{\"cgroup\":\"/pincore-7\","
			       "\"home\":\"/user.slice\",\"enabled\":true}},{\"state\":\"irqs\",\"irqs\":[{\"irq\":24,\"before\":"
			       "\"0-3\",\"name\":\"eth0\"}]},{\"state\":\"pinned\"}]", &r), 0);
	assert_int_equal(r.n, 1);
	assert_true(r.finished && r.partition.enabled);
	assert_int_equal(r.irqs_n, 1);
	assert_string_equal(r.partition.home, "/user.slice");
	assert_int_equal(r.plan.group[G_VCPU].cpu[0], 3);
	assert_non_null(record_thread(&r, 7, 9));
	assert_null(record_thread(&r, 7, 10)); /* the number is another's by now */
	record_free(&r);
	/* Pinned anew: what was before the first time is what counts. */
	assert_int_equal(parse("[" PINNING("") ",{\"state\":\"pinning\",\"pid\":7,\"starttime\":9,\"plan\":{\"vcpus\":\"2\"},"
			       "\"threads\":[{\"tid\":7,\"starttime\":9,\"role\":\"main\",\"before\":\"1\",\"pinned\":\"2\"}]}]", &r), 0);
	assert_int_equal(units_cpulist("0-3", &set), 0);
	assert_true(CPU_EQUAL(&r.threads[0].before, &set));
	assert_int_equal(units_cpulist("2", &set), 0);
	assert_true(CPU_EQUAL(&r.threads[0].pinned, &set));
	assert_false(r.finished);
	record_free(&r);
}

static int begin(void **state)
{
	(void)state;
	return mkdtemp(root) ? 0 : -1;
}

static int finish(void **state)
{
	(void)state;
	clear();
	return rmdir(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topologies),  cmocka_unit_test(auto_plans), cmocka_unit_test(auto_caches),
		cmocka_unit_test(auto_loads),  cmocka_unit_test(auto_small), cmocka_unit_test(auto_isolated),
		cmocka_unit_test(lists),       cmocka_unit_test(masks),	     cmocka_unit_test(numa_lines),
		cmocka_unit_test(records),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
