/* SPDX-License-Identifier: MIT */
/* populate BYTES THREADS: MADV_POPULATE_WRITE of fresh memory by so many threads, 32 MiB at a time, in huge
 * pages if it gets them, as QEMU asks for its own; prints bytes a second. What eptfill's first phase is measured against. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define CHUNK (32ull << 20)

static char *memory;
static uint64_t bytes;
static atomic_ullong next;
static atomic_int failed;

static void *populate(void *arg)
{
	uint64_t at;

	(void)arg;
	while ((at = atomic_fetch_add(&next, CHUNK)) < bytes)
		if (madvise(memory + at, bytes - at < CHUNK ? bytes - at : CHUNK, MADV_POPULATE_WRITE))
			atomic_store(&failed, 1);
	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	double begun;
	int n;

	if (argc != 3)
		return 2;
	bytes = strtoull(argv[1], NULL, 10);
	n = atoi(argv[2]);
	/* Aligned as a hypervisor aligns RAM, so that huge pages fit alike. */
	memory = mmap(NULL, bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || n < 1 || n > 64)
		return 1;
	memory += (2 << 20) - (uintptr_t)memory % (2 << 20);
	(void)madvise(memory, bytes, MADV_HUGEPAGE); /* a kernel without them has one size for both */
	begun = now();
	for (int i = 0; i < n; i++)
		pthread_create(&threads[i], NULL, populate, NULL);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	printf("%.0f\n", (double)bytes / (now() - begun));
	return atomic_load(&failed);
}
