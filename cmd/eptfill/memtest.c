/* SPDX-License-Identifier: MIT */
/*
 * memtest: the memory test of the thesis (section 5.3, figures 5-20 to 5-22): blocks that are
 * allocated and not written, and blocks that are written, with the time that each takes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "eptfill.h"

struct series {
	const char *what; /* "allocate", "write" */
	uint64_t size, total_ns, longest_ns;
	uint32_t count;
	bool write;
};

static void tell_block(const struct series *s, uint32_t i, const void *at, uint64_t ns)
{
	uint64_t used = s->size * (i + 1);

	if (eptfill_opts.json) {
		struct json_object *j = json_object_new_object();

		add_str(j, "schema", "util-vm/eptfill/memtest/1");
		add_str(j, "test", s->what);
		add_u64(j, "block", i);
		add_u64(j, "used_bytes", used);
		add_u64(j, "address", (uint64_t)(uintptr_t)at);
		if (s->write)
			add_u64(j, "touch_ns", ns);
		print_json(j);
	} else if (s->write) {
		printf("%-4u use %lluM memory    at  %lx    %.1f ms\n", i,
		       (unsigned long long)(used >> 20), (unsigned long)(uintptr_t)at, (double)ns / 1e6);
	} else {
		printf("%-4u use %lluM memory    at %lx\n", i, (unsigned long long)(used >> 20),
		       (unsigned long)(uintptr_t)at);
	}
}

/* One byte a page is what the guest's and the host's tables see. */
static uint64_t touch(char *block, uint64_t size)
{
	uint64_t begun = units_now_ns(), page = (uint64_t)sysconf(_SC_PAGESIZE);

	for (uint64_t at = 0; at < size; at += page)
		*(volatile char *)(block + at) = (char)at;
	return units_now_ns() - begun;
}

static int allocate(struct series *s, char **blocks)
{
	for (uint32_t i = 0; i < s->count && !signal_seen(); i++) {
		uint64_t ns = 0;

		/* Not malloc: blocks of any size are to be mapped, not cut from the heap. */
		blocks[i] = mmap(NULL, s->size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | (s->write ? 0 : MAP_NORESERVE), -1, 0);
		if (blocks[i] == MAP_FAILED) {
			blocks[i] = NULL;
			log_error("memtest: block %u of %u: %s", i, s->count, strerror(errno));
			return EXIT_NO;
		}
		if (s->write)
			ns = touch(blocks[i], s->size);
		s->total_ns += ns;
		s->longest_ns = ns > s->longest_ns ? ns : s->longest_ns;
		tell_block(s, i, blocks[i], ns);
	}
	return EXIT_DONE;
}

static int run_series(struct series *s)
{
	char **blocks = calloc(s->count ? s->count : 1, sizeof(*blocks));
	int status;

	if (!blocks) {
		log_error("memtest: %s", strerror(ENOMEM));
		return EXIT_ROLLED_BACK;
	}
	status = allocate(s, blocks);
	for (uint32_t i = 0; i < s->count && blocks[i]; i++) {
		munmap(blocks[i], s->size);
		if (!eptfill_opts.json)
			printf("Free %lluM memory\n", (unsigned long long)(s->size * (i + 1) >> 20));
	}
	free(blocks);
	return status;
}

static void summarize(const struct series *s, int status)
{
	uint64_t bytes = s->size * s->count;
	char rate[32], time[32];

	if (eptfill_opts.json) {
		struct json_object *j = json_object_new_object();

		add_str(j, "schema", "util-vm/eptfill/memtest-summary/1");
		add_u64(j, "written_bytes", status ? 0 : bytes);
		add_u64(j, "touch_ns", s->total_ns);
		add_u64(j, "longest_block_ns", s->longest_ns);
		add_u64(j, "page_bytes", (uint64_t)sysconf(_SC_PAGESIZE));
		add_u64(j, "status", (uint64_t)status);
		print_json(j);
	} else if (!status && s->count) {
		printf("written at first %s in %s, %s/s\n", units_format_size(bytes, rate, sizeof(rate)),
		       units_format_duration(s->total_ns / 1000, time, sizeof(time)),
		       units_format_size((uint64_t)((double)bytes * 1e9 /
						    (double)(s->total_ns ? s->total_ns : 1)),
					 rate, sizeof(rate)));
	}
}

/* Blocks that are not written need address space only; the kernel's table of them is small. */
static int fits(uint64_t bytes)
{
	struct room room = {0};
	int status = EXIT_DONE;

	room_check_memory(&room, getpid(), bytes);
	for (unsigned i = 0; i < room.n; i++) {
		if (eptfill_opts.force)
			log_warn("memtest: %s", room.finding[i].text);
		else
			log_error("memtest: %s (--write-size, --write-count; --force)", room.finding[i].text);
		status = eptfill_opts.force ? status : EXIT_REFUSED;
	}
	return status;
}

static bool overflows(uint64_t size, uint32_t count)
{
	return !size || size > (1ull << 46) || (count && size > (1ull << 46) / count);
}

int eptfill_memtest(int argc, char **argv)
{
	struct series one = {.what = "allocate", .size = eptfill_opts.alloc_size,
			     .count = eptfill_opts.alloc_count};
	struct series two = {.what = "write", .size = eptfill_opts.write_size,
			     .count = eptfill_opts.write_count, .write = true};
	char a[32], b[32];
	int status;

	if (argc)
		return cli_usage_error("memtest %s: it takes no argument", argv[0]);
	if (overflows(one.size, one.count) || overflows(two.size, two.count))
		return cli_usage_error("memtest: sizes from 1 byte, and 64 TiB together at most");
	status = fits(two.size * two.count);
	if (eptfill_opts.dry_run && !eptfill_opts.json)
		printf("%u x %s not written, %u x %s written\n", one.count,
		       units_format_size(one.size, a, sizeof(a)), two.count,
		       units_format_size(two.size, b, sizeof(b)));
	if (status || eptfill_opts.dry_run)
		return status;
	catch_signals();
	status = run_series(&one);
	if (!status && !signal_seen())
		status = run_series(&two);
	summarize(&two, signal_seen() ? EXIT_SIGNAL + signal_seen() : status);
	return signal_seen() ? EXIT_SIGNAL + signal_seen() : status;
}
