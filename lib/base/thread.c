/* SPDX-License-Identifier: MIT */
#include "base/thread.h"

#include <sched.h>

void thread_batch(void)
{
	static const struct sched_param none;

	(void)sched_setscheduler(0, SCHED_BATCH, &none);
}

void thread_normal(void)
{
	static const struct sched_param none;

	(void)sched_setscheduler(0, SCHED_OTHER, &none);
}

void thread_urgent(void)
{
	static const struct sched_param lowest = {.sched_priority = 1};

	(void)sched_setscheduler(0, SCHED_RR, &lowest);
}
