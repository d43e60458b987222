/* SPDX-License-Identifier: MIT */
/*
 * memwriter SIZE[K|M|G] NONCE [PAGES/S]: dirty SIZE bytes of locked memory for ever, in page order,
 * pass after pass, every byte of it predictable (mempage.h). One line once the
 * first pass is complete, one at each SIGUSR1. SIGSTOP and SIGCONT hold it and let it go on.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "mempage.h"

/* It sleeps so long at a time at least: under emulation a guest that wakes up pays for it as for a hundred pages. */
#define NAP_NS 25000000

static volatile sig_atomic_t asked;

static void on_usr1(int sig)
{
	(void)sig;
	asked = 1;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "memwriter: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t number(const char *text, int base, char *unit)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, base);
	if (errno || end == text || (*end && (!unit || end[1])))
		goto bad;
	if (unit)
		*unit = *end;
	return n;
bad:
	fprintf(stderr, "memwriter: %s: not a number\n", text);
	exit(2);
}

static uint64_t size_bytes(const char *text)
{
	char unit;
	uint64_t n = number(text, 10, &unit);

	switch (unit) {
	case 'G':
		n <<= 10; /* fall through */
	case 'M':
		n <<= 10; /* fall through */
	case 'K':
		n <<= 10; /* fall through */
	case '\0':
		break;
	default:
		n = 0;
	}
	if (n < 2 * MEMPAGE_SIZE || n % MEMPAGE_SIZE) {
		fprintf(stderr, "memwriter: %s: want a multiple of 4K, 8K or more\n", text);
		exit(2);
	}
	return n;
}

/* volatile: ascending order is part of the format. */
static void write_page(volatile uint64_t *page, uint64_t nonce, uint64_t index, uint64_t pass)
{
	const uint64_t seed = mempage_seed(nonce, index, pass);

	page[MEMPAGE_PASS] = pass;
	for (unsigned int i = MEMPAGE_FILL; i < MEMPAGE_WORDS; i++)
		page[i] = mempage_word(seed, i);
}

int main(int argc, char **argv)
{
	const struct sigaction act = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };
	uint64_t size, nonce, rate, pages, written = 0, start, next;
	volatile uint64_t *mem;

	if (argc < 3 || argc > 4) {
		fputs("usage: memwriter SIZE[K|M|G] NONCE [PAGES/S]\n", stderr);
		return 2;
	}
	size = size_bytes(argv[1]);
	nonce = number(argv[2], 16, NULL);
	rate = argc > 3 ? number(argv[3], 10, NULL) : 0;
	pages = size / MEMPAGE_SIZE;

	/* A page that the kernel moves leaves an old copy of itself behind, which a dump shows
	 * too: no huge pages here, and init turns compaction of locked memory off. */
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		die("mmap");
	if (madvise((void *)mem, size, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("madvise");
	if (mlock((void *)mem, size))
		die("mlock");
	if (sigaction(SIGUSR1, &act, NULL))
		die("sigaction");

	for (uint64_t index = 0; index < pages; index++) {
		volatile uint64_t *page = mem + index * MEMPAGE_WORDS;

		page[MEMPAGE_MAGIC] = MEMPAGE_MAGIC_WORD;
		page[MEMPAGE_NONCE] = nonce;
		page[MEMPAGE_PAGES] = pages;
		page[MEMPAGE_INDEX] = index;
		write_page(page, nonce, index, 1);
	}
	printf("memwriter: %" PRIu64 " pages, nonce %016" PRIx64 "\n", pages, nonce);
	fflush(stdout);

	start = next = now_ns();
	for (uint64_t pass = 2;; pass++) {
		for (uint64_t index = 0; index < pages; index++) {
			write_page(mem + index * MEMPAGE_WORDS, nonce, index, pass);
			written++;
			if (asked) {
				uint64_t us = (now_ns() - start) / 1000;

				asked = 0;
				printf("memwriter: pass %" PRIu64 ", %" PRIu64 " pages in %" PRIu64
				       " us, %" PRIu64 " pages/s\n",
				       pass, written, us, us ? written * 1000000 / us : 0);
				fflush(stdout);
			}
			if (!rate)
				continue;
			/* After a hold it goes on at its rate, it does not catch up. */
			next += 1000000000 / rate;
			uint64_t now = now_ns();
			if (next + 100000000 < now)
				next = now;
			if (next > now + NAP_NS) {
				struct timespec t = { .tv_sec = (time_t)(next / 1000000000),
						      .tv_nsec = (long)(next % 1000000000) };
				while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
					;
			}
		}
	}
}
