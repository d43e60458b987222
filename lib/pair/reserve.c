/* SPDX-License-Identifier: MIT */
#include "pair/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/journal.h"
#include "base/units.h"
#include "pair/message.h"

#define MEM_MARGIN (64ull << 20) /* a hypervisor's own memory, per pair */

int reserve_lock(const char *state_dir, struct err *err)
{
	char path[4200];
	int fd;

	mkdir(state_dir, 0700); /* journal_open makes the whole path; here one level is enough */
	snprintf(path, sizeof(path), "%s/.reserve", state_dir);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX))
		return err_sys(err, -errno, "lock %s", path);
	return fd;
}

static uint64_t meminfo_available(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

static uint64_t rss_of(uint64_t pid)
{
	unsigned long long pages = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%llu/statm", (unsigned long long)pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*u %llu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What the pair of this journal will still take: its memory less what its processes hold. */
static uint64_t outstanding(const char *path)
{
	struct json_object *all, *members;
	uint64_t want = 0, have = 0;
	bool live = false, prepared = false;

	all = journal_read(path, &live, NULL);
	for (size_t i = 0; all && i < json_object_array_length(all); i++) {
		struct json_object *e = json_object_array_get_idx(all, i);

		if (message_number(e, "mem_bytes"))
			want = message_number(e, "mem_bytes");
		prepared = prepared || !strcmp(message_text(e, "state"), "prepared");
		if (!json_object_object_get_ex(e, "members", &members))
			continue;
		have = 0;
		for (size_t k = 0; k < json_object_array_length(members); k++) {
			struct json_object *place;

			if (json_object_object_get_ex(json_object_array_get_idx(members, k), "place",
						      &place))
				have += rss_of(message_number(place, "pid"));
		}
	}
	if (all)
		json_object_put(all);
	return live && !prepared && want > have ? want - have : 0;
}

static uint64_t promised_to_others(const char *state_dir)
{
	char pattern[4200];
	uint64_t sum = 0;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.sink", state_dir);
	if (glob(pattern, 0, NULL, &g))
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++)
		sum += outstanding(g.gl_pathv[i]);
	globfree(&g);
	return sum;
}

int reserve_check(const char *state_dir, uint64_t mem, const char *dir, uint64_t disk,
		  struct err *err)
{
	uint64_t available = meminfo_available(), others = promised_to_others(state_dir);
	uint64_t room = available > others ? available - others : 0, free_disk;
	char a[32], b[32];
	struct statvfs fs;

	if (room < mem + MEM_MARGIN)
		return err_set(err, -ENOMEM, "reserve memory: %s needed, %s free here",
			       units_format_size(mem + MEM_MARGIN, a, sizeof(a)),
			       units_format_size(room, b, sizeof(b)));
	if (statvfs(dir, &fs))
		return err_sys(err, -errno, "reserve disk in %s", dir);
	free_disk = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (free_disk < disk)
		return err_set(err, -ENOSPC, "reserve disk in %s: %s needed, %s free", dir,
			       units_format_size(disk, a, sizeof(a)),
			       units_format_size(free_disk, b, sizeof(b)));
	return 0;
}
