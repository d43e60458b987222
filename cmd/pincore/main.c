/* SPDX-License-Identifier: MIT */
/* pincore: pin a VM's threads, all of them, and prove it. */
#include "pincore.h"

struct pin_opts pin_opts = {
	.for_us = 5000000,
	.sample_us = 300000,
	.every_us = 1000000,
};

#define O pin_opts
#define OPT_CPUS                                                                               \
	{0, "vcpus", CLI_STRING, &O.cpus[G_VCPU], "CPUS", "vCPUs, one a CPU, in order"},       \
	{0, "emulator", CLI_STRING, &O.cpus[G_EMULATOR], "CPUS",                               \
	 "main loop, workers and all others"},                                                 \
	{0, "iothreads", CLI_STRING, &O.cpus[G_IOTHREAD], "CPUS", "iothreads (with the emulator)"}, \
	{0, "vhost", CLI_STRING, &O.cpus[G_VHOST], "CPUS", "vhost threads (with the iothreads)"}, \
	{0, "all", CLI_STRING, &O.all, "CPUS", "all threads, each role over these CPUs"},      \
	{0, "single", CLI_STRING, &O.single, "CPU", "all threads on one CPU"}
#define OPT_HOW                                                                                \
	{0, "float", CLI_FLAG, &O.floating, NULL, "a role's threads may use all its CPUs"},    \
	{0, "isolate", CLI_FLAG, &O.isolate, NULL, "set the CPUs apart, in a partition of their own"}, \
	{0, "irqs", CLI_FLAG, &O.irqs, NULL, "move interrupts off these CPUs"}
#define OPT_STATE {0, "state-dir", CLI_STRING, &O.state_dir, "DIR", "where the records are"}
#define OPT_JSON {0, "json", CLI_FLAG, &O.json, NULL, "one JSON object a line"}
#define OPT_DRY {'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "tell what would be done"}

static const struct cli_opt pin_options[] = {
	OPT_CPUS,
	{0, "soft", CLI_STRING, &O.soft, "CPUS", "Xen: CPUs that vCPUs rather run on"},
	OPT_HOW, OPT_DRY, OPT_STATE, OPT_JSON, CLI_END,
};
static const struct cli_opt auto_options[] = {
	OPT_HOW,
	{0, "sample", CLI_DURATION, &O.sample_us, "TIME", "how long to look at the load (300ms)"},
	OPT_DRY, OPT_STATE, OPT_JSON, CLI_END,
};
static const struct cli_opt show_options[] = {OPT_STATE, OPT_JSON, CLI_END};
static const struct cli_opt verify_options[] = {
	{'f', "for", CLI_DURATION, &O.for_us, "TIME", "how long to count (5s)"},
	OPT_STATE, OPT_JSON, CLI_END,
};
static const struct cli_opt watch_options[] = {
	OPT_CPUS, OPT_HOW,
	{0, "every", CLI_DURATION, &O.every_us, "TIME", "how often to look at the masks (1s)"},
	{'u', "undo", CLI_FLAG, &O.undo, NULL, "undo at the end"},
	OPT_STATE, OPT_JSON, CLI_END,
};
static const struct cli_opt undo_options[] = {
	{'a', "all", CLI_FLAG, &O.everything, NULL, "of all VMs that are recorded"},
	OPT_DRY, OPT_STATE, OPT_JSON, CLI_END,
};
static const struct cli_opt run_options[] = {
	OPT_CPUS, OPT_HOW,
	{0, "every", CLI_DURATION, &O.every_us, "TIME", "how often to look at the masks (1s)"},
	OPT_STATE, OPT_JSON, CLI_END,
};

static const struct cli_verb verbs[] = {
	{"pin", "TARGET", "pin a VM's threads to CPUs", pin_options, pin_pin},
	{"auto", "TARGET...", "pin them where memory, caches and load say", auto_options, pin_auto},
	{"show", "[TARGET...]", "list a VM's threads, or the VMs that are pinned", show_options, pin_show},
	{"verify", "TARGET", "count how often its threads move", verify_options, pin_verify},
	{"watch", "TARGET...", "pin VMs and keep them pinned", watch_options, pin_watch},
	{"undo", "TARGET... | --all", "put everything back as it was", undo_options, pin_undo},
	{"run", "CPUS | --vcpus CPUS... -- COMMAND [ARGUMENT...]", "start a VM on its CPUs, from its first instruction on", run_options, pin_run},
	{0},
};

int main(int argc, char **argv)
{
	static const struct cli_tool tool = {
		.name = "pincore",
		.summary = "Pin a VM's threads, all of them, and prove it.",
#ifdef HAVE_XEN
		.features = "QEMU (QMP), Xen (libxl), perf events, cgroup v2",
#else
		.features = "QEMU (QMP), perf events, cgroup v2",
#endif
		.verbs = verbs,
	};

	return cli_main(&tool, argc, argv);
}
