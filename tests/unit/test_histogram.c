/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/histogram.h"

static void empty(void **state)
{
	struct histogram *h = histogram_new();

	(void)state;
	assert_int_equal(histogram_count(h), 0);
	assert_int_equal(histogram_min(h), 0);
	assert_int_equal(histogram_max(h), 0);
	assert_int_equal(histogram_percentile(h, 50), 0);
	assert_true(histogram_mean(h) == 0 && histogram_stddev(h) == 0);
	histogram_free(h);
}

static void small_values_are_exact(void **state)
{
	struct histogram *h = histogram_new();

	(void)state;
	for (uint64_t v = 1; v <= 1000; v++)
		histogram_record(h, v);
	for (unsigned p = 1; p <= 100; p++)
		assert_int_equal(histogram_percentile(h, p), p * 10);
	assert_int_equal(histogram_percentile(h, 99.9), 999);
	assert_int_equal(histogram_min(h), 1);
	assert_int_equal(histogram_max(h), 1000);
	assert_true(fabs(histogram_mean(h) - 500.5) < 1e-9);
	histogram_free(h);
}

/* Whatever the value: what comes back differs by less than one in a thousand, and never below. */
static void three_digits(void **state)
{
	(void)state;
	for (uint64_t v = 1; v < HISTOGRAM_MAX / 3; v = v * 3 + v % 7) {
		struct histogram *h = histogram_new();
		uint64_t got;

		histogram_record(h, v);
		histogram_record(h, HISTOGRAM_MAX);
		got = histogram_percentile(h, 50);
		assert_true(got >= v);
		assert_true((double)(got - v) <= (double)v / 1000);
		histogram_free(h);
	}
}

static void edges(void **state)
{
	struct histogram *h = histogram_new();

	(void)state;
	for (int bit = 0; bit < 64; bit++) {
		histogram_record(h, UINT64_C(1) << bit);
		histogram_record(h, (UINT64_C(1) << bit) - 1);
	}
	histogram_record(h, UINT64_MAX);
	assert_int_equal(histogram_count(h), 129);
	assert_int_equal(histogram_max(h), HISTOGRAM_MAX);
	assert_int_equal(histogram_min(h), 0);
	assert_int_equal(histogram_percentile(h, 0), 0);
	assert_int_equal(histogram_percentile(h, 100), HISTOGRAM_MAX);
	assert_int_equal(histogram_percentile(h, 1e9), HISTOGRAM_MAX);
	histogram_free(h);
}

static void merged_is_as_recorded_in_one(void **state)
{
	struct histogram *a = histogram_new(), *b = histogram_new(), *all = histogram_new();
	uint64_t x = 88172645463325252u;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		uint64_t v;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		v = x >> (24 + x % 30);
		histogram_record(i % 2 ? a : b, v);
		histogram_record(all, v);
	}
	histogram_merge(a, b);
	assert_int_equal(histogram_count(a), histogram_count(all));
	assert_int_equal(histogram_min(a), histogram_min(all));
	assert_int_equal(histogram_max(a), histogram_max(all));
	for (double p = 0; p <= 100; p += 0.1)
		assert_int_equal(histogram_percentile(a, p), histogram_percentile(all, p));
	histogram_free(a);
	histogram_free(b);
	histogram_free(all);
}

static char *text_of(const struct histogram *h, double scale)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_int_equal(histogram_write_percentiles(h, scale, f), 0);
	fclose(f);
	return text;
}

/* Line by line what HdrHistogram 2.1's outputPercentileDistribution prints of 1 … 10. */
static void percentile_text(void **state)
{
	static const char want[] =
		"       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
		"       1.000 0.000000000000          1           1.00\n"
		"       1.000 0.100000000000          1           1.11\n"
		"       2.000 0.200000000000          2           1.25\n"
		"       3.000 0.300000000000          3           1.43\n"
		"       4.000 0.400000000000          4           1.67\n"
		"       5.000 0.500000000000          5           2.00\n"
		"       6.000 0.550000000000          6           2.22\n"
		"       6.000 0.600000000000          6           2.50\n"
		"       7.000 0.650000000000          7           2.86\n"
		"       7.000 0.700000000000          7           3.33\n"
		"       8.000 0.750000000000          8           4.00\n"
		"       8.000 0.775000000000          8           4.44\n"
		"       8.000 0.800000000000          8           5.00\n"
		"       9.000 0.825000000000          9           5.71\n"
		"       9.000 0.850000000000          9           6.67\n"
		"       9.000 0.875000000000          9           8.00\n"
		"       9.000 0.887500000000          9           8.89\n"
		"       9.000 0.900000000000          9          10.00\n"
		"      10.000 0.912500000000         10          11.43\n"
		"      10.000 1.000000000000         10\n"
		"#[Mean    =        5.500, StdDeviation   =        2.872]\n"
		"#[Max     =       10.000, Total count    =           10]\n"
		"#[Buckets =           32, SubBuckets     =         2048]\n";
	struct histogram *h = histogram_new();
	char *text;

	(void)state;
	for (uint64_t v = 1; v <= 10; v++)
		histogram_record(h, v);
	text = text_of(h, 1);
	assert_string_equal(text, want);
	free(text);
	histogram_free(h);
}

static void percentile_text_of_nothing(void **state)
{
	struct histogram *h = histogram_new();
	char *text = text_of(h, 1e6);

	(void)state;
	assert_non_null(strstr(text, "Total count    =            0]"));
	free(text);
	histogram_free(h);
}

static void full_disk(void **state)
{
	struct histogram *h = histogram_new();
	FILE *f = fopen("/dev/full", "w");

	(void)state;
	assert_non_null(f);
	assert_true(histogram_write_percentiles(h, 1, f) < 0);
	fclose(f);
	histogram_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),
		cmocka_unit_test(small_values_are_exact),
		cmocka_unit_test(three_digits),
		cmocka_unit_test(edges),
		cmocka_unit_test(merged_is_as_recorded_in_one),
		cmocka_unit_test(percentile_text),
		cmocka_unit_test(percentile_text_of_nothing),
		cmocka_unit_test(full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
