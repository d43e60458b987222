/* SPDX-License-Identifier: MIT */
/* Sizes, durations, CPU lists and times, as people write and read them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/units.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

struct number {
	const char *text;
	int rc;
	uint64_t value;
};

static void assert_numbers(int (*parse)(const char *, uint64_t *), const struct number *n,
			   size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = 0;
		int rc = parse(n[i].text, &value);

		if (rc != n[i].rc || (!rc && value != n[i].value))
			fail_msg("'%s': %d, %llu", n[i].text, rc, (unsigned long long)value);
	}
}

static void sizes(void **state)
{
	static const struct number n[] = {
		{"0", 0, 0},
		{"512", 0, 512},
		{"512B", 0, 512},
		{"4K", 0, 4096},
		{"4k", 0, 4096},
		{"4KiB", 0, 4096},
		{"4KB", 0, 4000},
		{"1.5G", 0, 1610612736},
		{"64MiB", 0, 67108864},
		{"10MB", 0, 10000000},
		{"2T", 0, 2199023255552},
		{"9007199254740993", 0, 9007199254740993}, /* a double would lose the 3 */
		{"9223372036854775807", 0, INT64_MAX},
		{"9223372036854775808", -ERANGE, 0},
		{"8388608T", -ERANGE, 0},
		{"99999999999999999999999999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{".5K", -EINVAL, 0},
		{"5.K", -EINVAL, 0},
		{"1.2.3", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 K", -EINVAL, 0},
		{"1KK", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"inf", -EINVAL, 0},
		{"nan", -EINVAL, 0},
	};

	(void)state;
	assert_numbers(units_size, n, COUNT(n));
}

static void durations(void **state)
{
	static const struct number n[] = {
		{"0", 0, 0},
		{"2", 0, 2000000},
		{"300ms", 0, 300000},
		{"1.5s", 0, 1500000},
		{"0.1", 0, 100000},
		{"20us", 0, 20},
		{"2m", 0, 120000000},
		{"2min", 0, 120000000},
		{"1h", 0, 3600000000},
		{"1d", 0, 86400000000},
		{"106751991d", 0, 9223372022400000000},
		{"106751992d", -ERANGE, 0},
		{"1w", -EINVAL, 0},
		{"ms", -EINVAL, 0},
		{"1s5", -EINVAL, 0},
	};

	(void)state;
	assert_numbers(units_duration, n, COUNT(n));
}

static void assert_cpus(const char *text, const char *wanted)
{
	char got[CPU_SETSIZE * 5] = "";
	cpu_set_t set;

	assert_int_equal(units_cpulist(text, &set), 0);
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &set))
			snprintf(got + strlen(got), 8, "%d ", c);
	assert_string_equal(got, wanted);
}

static void cpu_lists(void **state)
{
	static const struct number bad[] = {
		{"", -EINVAL, 0},	  {",", -EINVAL, 0},	  {"1,", -EINVAL, 0},
		{",1", -EINVAL, 0},	  {"1,,2", -EINVAL, 0},	  {"3-1", -EINVAL, 0},
		{"1-", -EINVAL, 0},	  {"-1", -EINVAL, 0},	  {"1-2-3", -EINVAL, 0},
		{"1-4:0", -EINVAL, 0},	  {"1-4:", -EINVAL, 0},	  {"1:2", -EINVAL, 0},
		{"a", -EINVAL, 0},	  {"1 ", -EINVAL, 0},	  {" 1", -EINVAL, 0},
		{"0x1", -EINVAL, 0},	  {"1024", -ERANGE, 0},	  {"0-1024", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},		  {"0-4294967296", -ERANGE, 0},
		{"18446744073709551616", -ERANGE, 0},
	};
	cpu_set_t set;

	(void)state;
	assert_cpus("0", "0 ");
	assert_cpus("0,3,7-11", "0 3 7 8 9 10 11 ");
	assert_cpus("0-31:8", "0 8 16 24 ");
	assert_cpus("5-5", "5 ");
	assert_cpus("3,3,1-3", "1 2 3 ");
	assert_cpus("1-4:9999999999999999999999", "1 ");
	assert_cpus("1023", "1023 ");
	for (size_t i = 0; i < COUNT(bad); i++)
		if (units_cpulist(bad[i].text, &set) != bad[i].rc)
			fail_msg("'%s': %d", bad[i].text, units_cpulist(bad[i].text, &set));
}

static void assert_cpulist(const char *text, const char *wanted)
{
	char out[UNITS_CPULIST_MAX];
	cpu_set_t set, back;

	assert_int_equal(units_cpulist(text, &set), 0);
	assert_string_equal(units_format_cpulist(&set, out, sizeof(out)), wanted);
	assert_int_equal(units_cpulist(out, &back), 0);
	assert_true(CPU_EQUAL(&set, &back));
}

static void cpu_lists_written(void **state)
{
	char out[12];
	cpu_set_t set;

	(void)state;
	assert_cpulist("0", "0");
	assert_cpulist("0,1", "0,1");
	assert_cpulist("2,1,0", "0-2");
	assert_cpulist("0-1023", "0-1023");
	assert_cpulist("1023,5,7-9", "5,7-9,1023");
	assert_int_equal(units_cpulist("0-1023:2", &set), 0); /* the longest there is */
	assert_true(strlen(units_format_cpulist(&set, (char[UNITS_CPULIST_MAX]){0}, UNITS_CPULIST_MAX)) < UNITS_CPULIST_MAX - 4);
	assert_string_equal(units_format_cpulist(&set, out, sizeof(out)), "0,2,4,6...");
	assert_int_equal(units_cpulist(out, &set), -EINVAL);
	CPU_ZERO(&set);
	assert_string_equal(units_format_cpulist(&set, out, sizeof(out)), "");
}

static void formats(void **state)
{
	char b[40];

	(void)state;
	assert_string_equal(units_format_size(0, b, sizeof(b)), "0 B");
	assert_string_equal(units_format_size(1023, b, sizeof(b)), "1023 B");
	assert_string_equal(units_format_size(1024, b, sizeof(b)), "1.0 KiB");
	assert_string_equal(units_format_size(1048575, b, sizeof(b)), "1.0 MiB");
	assert_string_equal(units_format_size(1610612736, b, sizeof(b)), "1.5 GiB");
	assert_string_equal(units_format_size(UINT64_MAX, b, sizeof(b)), "16.0 EiB");
	assert_string_equal(units_format_duration(999, b, sizeof(b)), "999 us");
	assert_string_equal(units_format_duration(12345, b, sizeof(b)), "12.3 ms");
	assert_string_equal(units_format_duration(999999, b, sizeof(b)), "1.00 s");
	assert_string_equal(units_format_duration(1500000, b, sizeof(b)), "1.50 s");
	assert_string_equal(units_format_duration(125000000, b, sizeof(b)), "2m05s");
	assert_string_equal(units_format_duration(UINT64_MAX, b, sizeof(b)), "307445734561m49s");
}

static void times(void **state)
{
	char b[40];
	uint64_t us = units_now_us(), ns = units_now_ns();

	(void)state;
	assert_true(ns / 1000 >= us);
	assert_string_equal(units_iso8601(0, b, sizeof(b)), "1970-01-01T00:00:00.000Z");
	assert_string_equal(units_iso8601(1795298724123456, b, sizeof(b)), "2026-11-21T22:05:24.123Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),   cmocka_unit_test(durations), cmocka_unit_test(cpu_lists),
		cmocka_unit_test(formats), cmocka_unit_test(times),	cmocka_unit_test(cpu_lists_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
