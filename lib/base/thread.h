/* SPDX-License-Identifier: MIT */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

/*
 * The calling thread, and the processes that it starts, work through a long stream: woken by who feeds it they do not
 * interrupt him (SCHED_BATCH, sched(7)). On one processor both then run for milliseconds, not for a few pages at a
 * time. Where the system does not allow it all stays as it is.
 */
void thread_batch(void);

/*
 * The calling thread, and those that it starts, answer at once (SCHED_RR): for who sleeps, and when woken must not wait
 * for others' milliseconds. Where the system does not allow it all stays as it is.
 */
void thread_urgent(void);

/* As threads are unless somebody says otherwise (SCHED_OTHER): after either of them. */
void thread_normal(void);

#endif
