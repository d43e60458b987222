/* SPDX-License-Identifier: MIT */
/* pin: where the user says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "hypervisor.h"
#include "keeper.h"
#include "pin.h"

static int parse(const char *option, const char *text, struct cpus *cpus)
{
	int rc = plan_cpus_parse(text, cpus);

	if (rc == -ERANGE)
		return cli_usage_error("--%s %s: a CPU number beyond %d", option, text, CPU_SETSIZE - 1);
	return rc ? cli_usage_error("--%s %s: not a CPU list such as 2,4-7", option, text) : 0;
}

static int by_role(struct plan *plan)
{
	int rc = 0;

	for (int g = 0; !rc && g < GROUPS; g++)
		if (pin_opts.cpus[g])
			rc = parse(plan_group_name((enum group)g), pin_opts.cpus[g], &plan->group[g]);
	/* Helpers of the emulator go with it unless they have CPUs of their own. */
	if (!plan->group[G_IOTHREAD].n)
		plan->group[G_IOTHREAD] = plan->group[G_EMULATOR];
	if (!plan->group[G_VHOST].n)
		plan->group[G_VHOST] = plan->group[G_IOTHREAD];
	return rc;
}

int plan_of_options(struct plan *plan, bool *given)
{
	const char *all = pin_opts.all ? pin_opts.all : pin_opts.single;
	const char *name = pin_opts.all ? "all" : "single";
	bool roles = false;
	int rc;

	memset(plan, 0, sizeof(*plan));
	for (int g = 0; g < GROUPS; g++)
		roles |= pin_opts.cpus[g] != NULL;
	plan->floating = pin_opts.floating;
	plan->isolate = pin_opts.isolate;
	plan->irqs = pin_opts.irqs;
	*given = all || roles;
	if ((pin_opts.all && pin_opts.single) || (all && roles))
		return cli_usage_error("--all, --single and lists by role exclude each other");
	if (!*given)
		return 0;
	if (!all)
		return by_role(plan);
	for (int g = 0; g < GROUPS; g++) {
		rc = parse(name, all, &plan->group[g]);
		if (rc)
			return rc;
	}
	if (pin_opts.single && plan->group[0].n != 1)
		return cli_usage_error("--single %s: one CPU", all);
	/* Main loop and vCPUs on one CPU starve each other: that must be asked for by its name. */
	if (pin_opts.all && plan->group[0].n == 1)
		return cli_usage_error("--all %s: one CPU for all threads is --single %s", all, all);
	return 0;
}

static int check_online(const struct plan *plan, const struct topology *t)
{
	cpu_set_t wanted, both;
	char cpus[200];

	plan_all_cpus(plan, &wanted);
	CPU_AND(&both, &wanted, &t->online);
	if (CPU_EQUAL(&both, &wanted))
		return 0;
	CPU_XOR(&both, &both, &wanted);
	log_error("pin: CPU %s is not on line here", units_format_cpulist(&both, cpus, sizeof(cpus)));
	return EXIT_REFUSED;
}

/* With --isolate everything of the process lives in the partition. */
static int check_isolate(const struct plan *plan)
{
	for (int g = 0; plan->isolate && g < GROUPS; g++)
		if (!plan->group[g].n)
			return cli_usage_error("--isolate: all threads need a place (--%s is missing)",
					       plan_group_name((enum group)g));
	return 0;
}

static bool roles_differ(const struct plan *plan)
{
	cpu_set_t v, e;

	plan_cpus_set(&plan->group[G_VCPU], &v);
	plan_cpus_set(&plan->group[G_EMULATOR], &e);
	return plan->group[G_VCPU].n && !CPU_EQUAL(&v, &e);
}

int plan_check(const struct plan *plan, const struct subject *s)
{
	struct topology *t;
	struct err err = {0};
	int rc = check_isolate(plan);

	if (rc)
		return rc;
	if (plan->irqs && access("/proc/irq/default_smp_affinity", W_OK)) {
		log_error("pin: --irqs: write below /proc/irq: %s (root is needed)", strerror(errno));
		return EXIT_REFUSED;
	}
	if (topology_read("", &t, &err)) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	rc = check_online(plan, t);
	free(t);
	if (!rc && s && roles_differ(plan) && !subject_count(s, G_VCPU)) {
		log_error("pin %s: which threads are its vCPUs is not known (its QMP socket must answer, or start it "
			  "with -name NAME,debug-threads=on, or pin --all threads)", s->vm.target);
		rc = EXIT_REFUSED;
	}
	return rc;
}

static void print_thread(const struct keeper *k, const struct held *h)
{
	char now[200], then[200], label[40];
	struct json_object *o;

	units_format_cpulist(&h->before, now, sizeof(now));
	units_format_cpulist(&h->mask, then, sizeof(then));
	if (!pin_opts.json) {
		printf("%-12s %7d %-16s %-10s -> %s\n", thread_label(&h->t, label, sizeof(label)), (int)h->t.tid,
		       h->t.name, now, then);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/pin/1"));
	json_object_object_add(o, "vm", json_object_new_string(subject_name(&k->s)));
	json_object_object_add(o, "pid", json_object_new_int(k->s.vm.pid));
	json_object_object_add(o, "tid", json_object_new_int(h->t.tid));
	json_object_object_add(o, "role", json_object_new_string(vm_role_name(h->t.role)));
	if (h->t.index >= 0)
		json_object_object_add(o, "index", json_object_new_int(h->t.index));
	json_object_object_add(o, "name", json_object_new_string(h->t.name));
	json_object_object_add(o, "before", json_object_new_string(now));
	json_object_object_add(o, "cpus", json_object_new_string(then));
	json_object_object_add(o, "dry_run", json_object_new_boolean(pin_opts.dry_run));
	print_json(o);
}

static void print_all(const struct keeper *k)
{
	struct json_object *o;

	if (pin_opts.json || pin_opts.dry_run || log_level() >= LOG_VERBOSE)
		for (size_t i = 0; i < k->n; i++)
			print_thread(k, &k->held[i]);
	if (!pin_opts.json || pin_opts.dry_run)
		return;
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/pinned/1"));
	json_object_object_add(o, "vm", json_object_new_string(subject_name(&k->s)));
	json_object_object_add(o, "pid", json_object_new_int(k->s.vm.pid));
	json_object_object_add(o, "threads", json_object_new_uint64(k->pinned));
	json_object_object_add(o, "unpinnable", json_object_new_uint64(k->unpinnable));
	json_object_object_add(o, "irqs", json_object_new_uint64(k->irqs_n - k->irqs_stuck));
	json_object_object_add(o, "irqs_stuck", json_object_new_uint64(k->irqs_stuck));
	json_object_object_add(o, "isolated", json_object_new_boolean(*k->partition.cgroup != '\0'));
	json_object_object_add(o, "took_us", json_object_new_uint64(k->took_us));
	print_json(o);
}

static void notes(const struct keeper *k)
{
	for (int g = 0; g < GROUPS; g++) {
		unsigned n = subject_count(&k->s, (enum group)g);

		if (n && !k->plan.group[g].n)
			log_note("pin %s: %u thread%s of its %s left alone (--%s)", subject_name(&k->s), n,
				 n == 1 ? "" : "s", g == G_EMULATOR ? "emulator" : plan_group_name((enum group)g),
				 plan_group_name((enum group)g));
	}
	if (k->irqs_stuck)
		log_note("pin %s: %zu of %zu interrupts cannot be moved, the kernel manages them: %s",
			 subject_name(&k->s), k->irqs_stuck, k->irqs_n, k->stuck);
}

int pin_subject(struct keeper *k)
{
	int rc = 0;

	if (pin_opts.dry_run)
		keeper_imagine(k);
	else
		rc = keeper_pin(k);
	if (!rc) {
		print_all(k);
		notes(k);
	}
	return rc;
}

int pin_pin(int argc, char **argv)
{
	struct keeper k = {0};
	struct vm vm;
	bool given;
	int rc = plan_of_options(&k.plan, &given);

	if (rc)
		return rc;
	if (argc != 1)
		return cli_usage_error(argc ? "%s: one TARGET at a time" : "a TARGET is missing%s", argc ? argv[1] : "");
	if (!given)
		return cli_usage_error("which CPUs? (--vcpus and --emulator, --all or --single; or 'pincore auto')");
	if (hypervisor_vm(argv[0], &vm))
		return hypervisor_pin(&vm, &k.plan);
	if (pin_opts.soft)
		return cli_usage_error("--soft: only of a VM whose vCPUs are a hypervisor's own (xen:NAME)");
	rc = subject_open(argv[0], &k.s);
	if (rc)
		return rc;
	rc = plan_check(&k.plan, &k.s);
	if (!rc)
		rc = pin_subject(&k);
	keeper_free(&k);
	return rc;
}
