/* SPDX-License-Identifier: MIT */
/* Numbers as people write them: sizes, durations, CPU lists; and the clocks. */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

/* "512", "4K", "1.5G", "64MiB" (powers of 1024), "10MB" (powers of 1000) → bytes. -EINVAL, -ERANGE. */
int units_size(const char *text, uint64_t *bytes);

/* "300ms", "1.5s", "20us", "2m", "1h", "1d"; a bare number is seconds → microseconds. -EINVAL, -ERANGE. */
int units_duration(const char *text, uint64_t *usec);

/* Bytes as "1.5 GiB", microseconds as "12.3 ms", into @buf; returns @buf. */
const char *units_format_size(uint64_t bytes, char *buf, size_t size);
const char *units_format_duration(uint64_t usec, char *buf, size_t size);

/*
 * A CPU list as taskset(1) and cpuset(7) write it: "0,3,7-11,0-31:2" → *@set.
 * -EINVAL: not a list; -ERANGE: a CPU number of CPU_SETSIZE (1024) or more.
 */
int units_cpulist(const char *text, cpu_set_t *set);

/* Its inverse, "0,3,7-11", into @buf; returns @buf. UNITS_CPULIST_MAX always fits; what does not
 * fit ends in "...", which is no list. No CPU at all is "". */
#define UNITS_CPULIST_MAX 2560
const char *units_format_cpulist(const cpu_set_t *set, char *buf, size_t size);

uint64_t units_now_us(void);	  /* CLOCK_MONOTONIC: for intervals */
uint64_t units_now_ns(void);	  /* CLOCK_MONOTONIC */
uint64_t units_realtime_us(void); /* CLOCK_REALTIME: for records */

/* UTC ISO-8601 with milliseconds, "2026-11-21T22:05:24.123Z"; @size ≥ 32; returns @buf. */
const char *units_iso8601(uint64_t realtime_us, char *buf, size_t size);

#endif
