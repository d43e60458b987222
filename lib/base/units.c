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
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"K", 1ull << 10},
	{"KiB", 1ull << 10},
	{"M", 1ull << 20},
	{"MiB", 1ull << 20},
	{"G", 1ull << 30},
	{"GiB", 1ull << 30},
	{"T", 1ull << 40},
	{"TiB", 1ull << 40},
	{"KB", 1000},
	{"MB", 1000000},
	{"GB", 1000000000},
	{"TB", 1000000000000},
	{NULL, 0},
};

static const struct unit duration_units[] = {
	{"", 1000000},	    {"s", 1000000},	{"ms", 1000},	       {"us", 1},
	{"m", 60000000},    {"min", 60000000},	{"h", 3600000000},     {"d", 86400000000},
	{NULL, 0},
};

/* Digits with at most one point among them; whole numbers stay exact up to 2^63. */
static int parse(const char *text, const struct unit *units, uint64_t *out)
{
	size_t digits = strspn(text, "0123456789"), fraction = 0;
	const char *unit = text + digits;
	uint64_t whole, part = 0;

	if (!digits)
		return -EINVAL;
	if (*unit == '.') {
		fraction = strspn(unit + 1, "0123456789");
		if (!fraction)
			return -EINVAL;
		unit += 1 + fraction;
	}
	while (units->name && strcasecmp(units->name, unit))
		units++;
	if (!units->name)
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, NULL, 10);
	if (errno)
		return -ERANGE;
	if (fraction)
		part = (uint64_t)llround((strtod(text, NULL) - (double)whole) * (double)units->factor);
	if (whole > (INT64_MAX - part) / units->factor)
		return -ERANGE;
	*out = whole * units->factor + part;
	return 0;
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

	while (v >= (i ? 1023.95 : 1024) && i < 6) { /* no "1024.0 KiB" */
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
	else if (usec < 999950) /* no "1000.0 ms" */
		snprintf(buf, size, "%.1f ms", (double)usec / 1e3);
	else if (usec < 120000000)
		snprintf(buf, size, "%.2f s", (double)usec / 1e6);
	else
		snprintf(buf, size, "%llum%02us", (unsigned long long)usec / 60000000,
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

static int last_of_run(const cpu_set_t *set, int first)
{
	while (first + 1 < CPU_SETSIZE && CPU_ISSET(first + 1, set))
		first++;
	return first;
}

const char *units_format_cpulist(const cpu_set_t *set, char *buf, size_t size)
{
	size_t n = 0;

	if (size)
		*buf = '\0';
	for (int c = 0; c < CPU_SETSIZE; c++) {
		int last = last_of_run(set, c);
		char one[24];
		size_t len;

		if (!CPU_ISSET(c, set))
			continue;
		len = (size_t)snprintf(one, sizeof(one), last == c ? "%s%d" : last == c + 1 ? "%s%d,%d" : "%s%d-%d",
				       n ? "," : "", c, last);
		if (n + len + (last + 1 < CPU_SETSIZE ? 4 : 1) > size) {
			snprintf(buf + n, size - n, "...");
			break;
		}
		memcpy(buf + n, one, len + 1);
		n += len;
		c = last;
	}
	return buf;
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
