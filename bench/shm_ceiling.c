/* SPDX-License-Identifier: MIT */
/*
 * shm_ceiling SECONDS SIZE DEPTH: requests a second of two processes that share memory and do nothing
 * but copy: in, across, out, as a guest and a card that computes nothing must. Both poll. The most that a card
 * behind shared memory can do on this machine.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 30
#define DATA 16384

struct slot {
	_Atomic uint64_t seq;
	uint8_t pad[504];
	uint8_t data[DATA];
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void card(struct slot *in, struct slot *out, size_t size)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t seq = 1;; seq++) {
		struct slot *s = &in[seq % SLOTS], *to = &out[seq % SLOTS];

		while (atomic_load_explicit(&s->seq, memory_order_acquire) != seq)
			;
		memcpy(to->data, s->data, size);
		atomic_store_explicit(&to->seq, seq, memory_order_release);
	}
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1, begun;
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 4096;
	uint64_t depth = argc > 3 ? strtoul(argv[3], NULL, 10) : 16, sent = 0, done = 0;
	struct slot *in = mmap(NULL, 2 * SLOTS * sizeof(*in), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t *data = calloc(depth ? depth : 1, DATA), *back = calloc(depth ? depth : 1, DATA);
	pid_t pid;

	if (in == MAP_FAILED || !data || !back || size > DATA || !depth || depth > SLOTS)
		return 2;
	pid = fork();
	if (pid == 0)
		card(in, in + SLOTS, size);
	begun = now();
	do {
		while (sent - done < depth) {
			struct slot *s = &in[++sent % SLOTS];

			memcpy(s->data, data + sent % depth * DATA, size);
			atomic_store_explicit(&s->seq, sent, memory_order_release);
		}
		while (sent - done > depth / 2) {
			struct slot *s = &in[SLOTS + (done + 1) % SLOTS];

			while (atomic_load_explicit(&s->seq, memory_order_acquire) != done + 1)
				;
			done++;
			memcpy(back + done % depth * DATA, s->data, size);
		}
	} while (now() - begun < seconds);
	printf("%.0f\n", (double)done / (now() - begun));
	kill(pid, SIGKILL);
	return 0;
}
