/* SPDX-License-Identifier: MIT */
/*
 * memtouch SIZE[K|M|G]|all [PATTERN]: write every page of that much memory once, and say how much and how
 * long: "memtouch: PAGES pages KIB KiB SECONDS s". "all" is what the kernel can give, but for 8 MiB
 * that it needs to go on (MemAvailable in /proc/meminfo). PATTERN (hexadecimal) fills the pages; else
 * each gets 8 bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, KEEP_KIB = 8192 };

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "memtouch: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t kib = 0;

	if (!f)
		die("/proc/meminfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	fclose(f);
	if (kib <= KEEP_KIB) {
		errno = ENOMEM;
		die("all");
	}
	return (kib - KEEP_KIB) << 10;
}

static uint64_t size_bytes(const char *text)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;
	uint64_t n;

	if (!strcmp(text, "all"))
		return available();
	n = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end) : NULL;
	if (end == text || (*end && (!unit || end[1])) || !n) {
		fprintf(stderr, "memtouch: %s: not a size\n", text);
		exit(2);
	}
	return unit ? n << (10 * (unit - units + 1)) : n;
}

int main(int argc, char **argv)
{
	uint64_t size, pattern, pages;
	struct timespec from, to;
	char *memory;

	if (argc < 2 || argc > 3) {
		fputs("usage: memtouch SIZE[K|M|G]|all [PATTERN]\n", stderr);
		return 2;
	}
	pages = size_bytes(argv[1]) / PAGE;
	size = pages * PAGE;
	pattern = argc > 2 ? strtoull(argv[2], NULL, 16) : 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (uint64_t i = 0; i < pages; i++) {
		volatile uint64_t *page = (uint64_t *)(memory + i * PAGE);

		*page = pattern ? pattern : i + 1;
		for (unsigned int n = 1; pattern && n < PAGE / sizeof(*page); n++)
			page[n] = pattern;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("memtouch: %" PRIu64 " pages %" PRIu64 " KiB %.3f s\n", pages, size >> 10,
	       (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
	return 0;
}
