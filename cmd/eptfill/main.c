/* SPDX-License-Identifier: MIT */
/* eptfill: all memory of a VM mapped before the guest asks for it, and proof of it. */
#include "eptfill.h"

#include "base/cli.h"

struct eptfill_opts eptfill_opts = {
	.duty_percent = 50,
	.stall_us = 2000,
	.interval_us = 1000000,
	.for_us = 10000000,
	.settle_us = 500000,
	.alloc_size = 300ull << 20,
	.alloc_count = 12,
	.write_size = 100ull << 20,
	.write_count = 30,
};

#define O eptfill_opts
#define OPT_JSON {0, "json", CLI_FLAG, &O.json, NULL, "one JSON object a line"}
#define OPT_FILLING                                                                            \
	{'t', "threads", CLI_U32, &O.threads, "N",                                             \
	 "threads that populate host memory (CPUs of the vCPUs, at most 16)"},                 \
	{'s', "stall", CLI_DURATION, &O.stall_us, "TIME",                                      \
	 "a vCPU is out of the guest for so long at a time, about (2ms)"},                     \
	{0, "duty", CLI_U32, &O.duty_percent, "PERCENT",                                       \
	 "of a vCPU's time that the fill may take, 1 to 100 (50)"}
#define OPT_FORCE                                                                              \
	{'f', "force", CLI_FLAG, &O.force, NULL, "fill although it may not fit, or not stay"}

static const struct cli_opt fill_opts[] = {
	OPT_FILLING,
	{0, "host-only", CLI_FLAG, &O.host_only, NULL, "host memory only, no second-level entries"},
	OPT_FORCE,
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "print the plan, touch nothing"},
	OPT_JSON,
	CLI_END,
};

static const struct cli_opt run_opts[] = {
	{'t', "threads", CLI_U32, &O.threads, "N", "threads that populate host memory (CPUs, at most 16)"},
	{0, "settle", CLI_DURATION, &O.settle_us, "TIME",
	 "firmware is done when no memslot has changed for TIME (500ms)"},
	{0, "keep-quirk", CLI_FLAG, &O.keep_quirk, NULL,
	 "leave KVM's zapping of all memory at a memslot's end as it is"},
	{0, "host-only", CLI_FLAG, &O.host_only, NULL, "host memory only, no second-level entries"},
	OPT_FORCE,
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "print the plan, start nothing"},
	CLI_END,
};

static const struct cli_opt stat_opts[] = {
	{'i', "interval", CLI_DURATION, &O.again_us, "TIME", "again each TIME, until interrupted"},
	OPT_JSON,
	CLI_END,
};

static const struct cli_opt verify_opts[] = {
	{0, "for", CLI_DURATION, &O.for_us, "TIME", "count violations for TIME (10s)"},
	OPT_JSON,
	CLI_END,
};

static const struct cli_opt watch_opts[] = {
	OPT_FILLING,
	{'i', "interval", CLI_DURATION, &O.interval_us, "TIME", "read the counters each TIME (1s)"},
	OPT_FORCE,
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "tell what undoes the fill, do not refill"},
	OPT_JSON,
	CLI_END,
};

static const struct cli_opt memtest_opts[] = {
	{0, "alloc-size", CLI_SIZE, &O.alloc_size, "BYTES", "blocks that are not written (300M)"},
	{0, "alloc-count", CLI_U32, &O.alloc_count, "N", "how many of them (12)"},
	{0, "write-size", CLI_SIZE, &O.write_size, "BYTES", "blocks that are written (100M)"},
	{0, "write-count", CLI_U32, &O.write_count, "N", "how many of them (30)"},
	{'f', "force", CLI_FLAG, &O.force, NULL, "although it does not fit"},
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "print the plan, allocate nothing"},
	OPT_JSON,
	CLI_END,
};

static const struct cli_verb verbs[] = {
	{"fill", "TARGET...", "fill the memory of running VMs", fill_opts, eptfill_fill},
	{"run", "[--] COMMAND [ARGUMENT]...", "start a VM whose memory is filled from the beginning",
	 run_opts, eptfill_run},
	{"stat", "TARGET...", "how far is it mapped?", stat_opts, eptfill_stat},
	{"verify", "TARGET...", "is all of it mapped, and are there no violations?", verify_opts,
	 eptfill_verify},
	{"watch", "TARGET...", "refill what was undone, and tell by what", watch_opts, eptfill_watch},
	{"memtest", "", "allocate and write memory, in a guest or anywhere", memtest_opts,
	 eptfill_memtest},
	{0},
};

int main(int argc, char **argv)
{
	static const struct cli_tool tool = {
		.name = "eptfill",
		.summary = "All memory of a VM mapped before the guest asks for it, and proof of it.",
#ifdef HAVE_XEN
		.features = "KVM, Xen (libxl), ptrace, QEMU (QMP), libnuma",
#else
		.features = "KVM, ptrace, QEMU (QMP), libnuma",
#endif
		.verbs = verbs,
	};

	return cli_main(&tool, argc, argv);
}
