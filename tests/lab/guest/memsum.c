/* SPDX-License-Identifier: MIT */
/*
 * memsum SIZE[K|M|G]: check that much memory without a pause, until SIGTERM. Each page is summed up, must
 * have the sum that was reckoned when it was written, and is written anew; beside it a process of its own counts
 * a timer's ticks. Then "memsum: SUMS sums WRONG wrong TICKS ticks LOST lost GAP ms longest", status 1 if one
 * was wrong or lost.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 512, TICK_MS = 10 };

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
	(void)sig;
	ended = 1;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "memsum: %s: %s\n", what, strerror(errno));
	exit(4);
}

static uint64_t size_bytes(const char *text)
{
	static const char units[] = "KMG";
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;

	n = unit ? n << (10 * (unit - units + 1)) : n;
	if (end == text || (*end && (!unit || end[1])) || n < 4096) {
		fprintf(stderr, "memsum: %s: not a size\n", text);
		exit(2);
	}
	return n;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct ticks {
	volatile uint64_t seen, lost, gap_ns;
};

/* Each expiry must come, sooner or later; how late the latest was is told. */
static _Noreturn void count_ticks(struct ticks *t)
{
	struct itimerspec its = { { 0, TICK_MS * 1000000 }, { 0, TICK_MS * 1000000 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t begun = now_ns(), last = begun;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || timerfd_settime(fd, 0, &its, NULL))
		die("timerfd");
	for (;;) {
		uint64_t n, now;

		if (read(fd, &n, sizeof(n)) != sizeof(n))
			die("timerfd");
		now = now_ns();
		t->seen += n;
		t->gap_ns = now - last > t->gap_ns ? now - last : t->gap_ns;
		last = now;
		n = (now - begun) / (TICK_MS * 1000000);
		t->lost = n > t->seen + 1 ? n - t->seen : 0;
	}
}

static uint64_t write_page(uint64_t *page, uint64_t seed)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < WORDS; i++) {
		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		page[i] = seed;
		sum = (sum << 1 | sum >> 63) ^ seed;
	}
	return sum;
}

static uint64_t sum_page(const volatile uint64_t *page)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < WORDS; i++)
		sum = (sum << 1 | sum >> 63) ^ page[i];
	return sum;
}

int main(int argc, char **argv)
{
	const struct sigaction act = { .sa_handler = on_term };
	uint64_t pages, sums = 0, wrong = 0, *memory, *want;
	struct ticks *ticks;
	pid_t ticker;

	if (argc != 2) {
		fputs("usage: memsum SIZE[K|M|G]\n", stderr);
		return 2;
	}
	pages = size_bytes(argv[1]) / (WORDS * 8);
	memory = mmap(NULL, pages * WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	want = calloc(pages, sizeof(*want));
	ticks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || !want || ticks == MAP_FAILED)
		die("memory");
	if (sigaction(SIGTERM, &act, NULL))
		die("sigaction");
	ticker = fork();
	if (ticker < 0)
		die("fork");
	if (!ticker) {
		signal(SIGTERM, SIG_IGN);
		count_ticks(ticks);
	}
	for (uint64_t i = 0; i < pages; i++)
		want[i] = write_page(memory + i * WORDS, i);
	puts("memsum: begun");
	fflush(stdout);
	for (uint64_t pass = 1; !ended; pass++)
		for (uint64_t i = 0; i < pages && !ended; i++, sums++) {
			wrong += sum_page(memory + i * WORDS) != want[i];
			want[i] = write_page(memory + i * WORDS, pass * pages + i);
		}
	if (waitpid(ticker, NULL, WNOHANG)) /* nobody counts any more */
		wrong++;
	kill(ticker, SIGKILL);
	printf("memsum: %" PRIu64 " sums %" PRIu64 " wrong %" PRIu64 " ticks %" PRIu64 " lost %.1f ms longest\n",
	       sums, wrong, ticks->seen, ticks->lost, (double)ticks->gap_ns / 1e6);
	return wrong || ticks->lost || ticks->seen < 10;
}
