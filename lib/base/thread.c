/* SPDX-License-Identifier: MIT */
#include "base/thread.h"

#include <sched.h>

void thread_batch(void)
{
	static const struct sched_param none;

	(void)sched_setscheduler(0, SCHED_BATCH, &none);
}
