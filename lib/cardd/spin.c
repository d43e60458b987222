/* SPDX-License-Identifier: MIT */
#include "cardd/spin.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/units.h"

#define ROUNDS 41
#define SPIN_MAX_NS 200000u
#define SPIN_USUAL_NS 50000u

struct pair {
	int there, back;
};

static void *echo(void *arg)
{
	const struct pair *p = arg;
	uint64_t n;

	for (unsigned i = 0; i < ROUNDS; i++)
		if (read(p->there, &n, sizeof(n)) != sizeof(n) || write(p->back, &n, sizeof(n)) != sizeof(n))
			break;
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t spin_measure(void)
{
	struct pair p = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
	uint64_t took[ROUNDS] = {0}, one = 1;
	cpu_set_t cpus;
	pthread_t t;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		took[ROUNDS / 2] = 0;
	else if (p.there < 0 || p.back < 0 || pthread_create(&t, NULL, echo, &p))
		took[ROUNDS / 2] = SPIN_USUAL_NS;
	else {
		for (unsigned i = 0; i < ROUNDS; i++) {
			uint64_t begun = units_now_ns();

			if (write(p.there, &one, sizeof(one)) != sizeof(one) ||
			    read(p.back, &one, sizeof(one)) != sizeof(one))
				break;
			took[i] = units_now_ns() - begun;
		}
		pthread_join(t, NULL);
		qsort(took, ROUNDS, sizeof(*took), by_size);
	}
	if (p.there >= 0)
		close(p.there);
	if (p.back >= 0)
		close(p.back);
	/* There and back is two wakeups: just twice the price of one. */
	return took[ROUNDS / 2] < SPIN_MAX_NS ? took[ROUNDS / 2] : SPIN_MAX_NS;
}
