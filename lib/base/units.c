/* SPDX-License-Identifier: MIT */
#include "base/units.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct unit {
	const char *name;
	double factor;
};

static const struct unit size_units[] = {
	{"", 1},	{"B", 1},	{"K", 0x1p10},	{"KiB", 0x1p10}, {"M", 0x1p20},
	{"MiB", 0x1p20}, {"G", 0x1p30}, {"GiB", 0x1p30}, {"T", 0x1p40},	 {"TiB", 0x1p40},
	{"KB", 1e3},	{"MB", 1e6},	{"GB", 1e9},	{"TB", 1e12},	 {NULL, 0},
};

static const struct unit duration_units[] = {
	{"", 1e6}, {"s", 1e6}, {"ms", 1e3}, {"us", 1}, {"m", 60e6}, {"min", 60e6},
	{"h", 3600e6}, {"d", 86400e6}, {NULL, 0},
};

/* strtod would take "inf", "0x1p3" and signs: allow digits and one point only. */
static int parse(const char *text, const struct unit *units, uint64_t *out)
{
	size_t digits = strspn(text, "0123456789."), whole = strspn(text, "0123456789");
	char number[32];
	double value;
	char *end;

	if (!whole || digits >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, digits);
	number[digits] = '\0';
	value = strtod(number, &end);
	if (*end)
		return -EINVAL;
	for (const struct unit *u = units; u->name; u++) {
		if (strcasecmp(u->name, text + digits))
			continue;
		value *= u->factor;
		if (value >= 0x1p63)
			return -ERANGE;
		*out = (uint64_t)llround(value);
		return 0;
	}
	return -EINVAL;
}

int units_size(const char *text, uint64_t *bytes)
{
	return parse(text, size_units, bytes);
}

int units_duration(const char *text, uint64_t *usec)
{
	return parse(text, duration_units, usec);
}

const char *units_format_size(uint64_t bytes, char *buf, size_t size)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t i = 0;

	while (v >= 1024 && i < 6) {
		v /= 1024;
		i++;
	}
	snprintf(buf, size, i ? "%.1f %s" : "%.0f %s", v, names[i]);
	return buf;
}

const char *units_format_duration(uint64_t usec, char *buf, size_t size)
{
	if (usec < 1000)
		snprintf(buf, size, "%u us", (unsigned)usec);
	else if (usec < 1000000)
		snprintf(buf, size, "%.1f ms", (double)usec / 1e3);
	else if (usec < 120000000)
		snprintf(buf, size, "%.2f s", (double)usec / 1e6);
	else
		snprintf(buf, size, "%um%02us", (unsigned)(usec / 60000000),
			 (unsigned)(usec / 1000000 % 60));
	return buf;
}

static bool number(const char **p, unsigned long max, unsigned long *out)
{
	unsigned long v = 0;
	const char *s = *p;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++)
		if (v <= max)
			v = v * 10 + (unsigned long)(*s - '0');
	*p = s;
	*out = v;
	return true;
}

int units_cpulist(const char *text, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (const char *p = text;; p++) {
		unsigned long first, last, step = 1;

		if (!number(&p, CPU_SETSIZE, &first))
			return -EINVAL;
		last = first;
		if (*p == '-') {
			p++;
			if (!number(&p, CPU_SETSIZE, &last) || last < first)
				return -EINVAL;
			if (*p == ':') {
				p++;
				if (!number(&p, CPU_SETSIZE, &step) || !step)
					return -EINVAL;
			}
		}
		if (last >= CPU_SETSIZE)
			return -ERANGE;
		for (unsigned long c = first; c <= last; c += step)
			CPU_SET(c, set);
		if (!*p)
			return 0;
		if (*p != ',')
			return -EINVAL;
	}
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t units_now_us(void)
{
	return clock_ns(CLOCK_MONOTONIC) / 1000;
}

uint64_t units_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t units_realtime_us(void)
{
	return clock_ns(CLOCK_REALTIME) / 1000;
}

const char *units_iso8601(uint64_t realtime_us, char *buf, size_t size)
{
	time_t sec = (time_t)(realtime_us / 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&sec, &tm);
	n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, size - n, ".%03uZ", (unsigned)(realtime_us / 1000 % 1000));
	return buf;
}
