/* SPDX-License-Identifier: MIT */
#include "base/histogram.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* HdrHistogram's geometry for three digits and a lowest value of 1. */
#define SUB_BITS 11
#define SUB_COUNT (1u << SUB_BITS)
#define HALF_COUNT (SUB_COUNT / 2)
#define BUCKETS (42 - SUB_BITS + 1)
#define SLOTS ((BUCKETS + 1) * HALF_COUNT)
#define TICKS_PER_HALF 5

struct histogram {
	uint64_t total, min, max;
	uint64_t counts[SLOTS];
};

struct histogram *histogram_new(void)
{
	struct histogram *h = calloc(1, sizeof(*h));

	if (h)
		h->min = UINT64_MAX;
	return h;
}

void histogram_free(struct histogram *h)
{
	free(h);
}

static unsigned slot_of(uint64_t value)
{
	unsigned bucket = 63 - SUB_BITS + 1 - (unsigned)__builtin_clzll(value | (SUB_COUNT - 1));
	unsigned sub = (unsigned)(value >> bucket);

	return bucket * HALF_COUNT + sub;
}

/* The lowest value of a slot, and how many values share it. */
static uint64_t slot_lowest(unsigned slot, uint64_t *width)
{
	unsigned bucket = slot / HALF_COUNT, sub = slot % HALF_COUNT + HALF_COUNT;

	if (!bucket) {
		*width = 1;
		return slot;
	}
	bucket--;
	*width = UINT64_C(1) << bucket;
	return (uint64_t)sub << bucket;
}

static uint64_t slot_highest(unsigned slot)
{
	uint64_t width, low = slot_lowest(slot, &width);

	return low + width - 1;
}

static double slot_middle(unsigned slot)
{
	uint64_t width, low = slot_lowest(slot, &width);

	return (double)low + (double)(width / 2);
}

void histogram_record(struct histogram *h, uint64_t value)
{
	if (value > HISTOGRAM_MAX)
		value = HISTOGRAM_MAX;
	h->counts[slot_of(value)]++;
	h->total++;
	if (value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (unsigned i = 0; i < SLOTS; i++)
		into->counts[i] += from->counts[i];
	into->total += from->total;
	if (from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
}

uint64_t histogram_count(const struct histogram *h)
{
	return h->total;
}

uint64_t histogram_min(const struct histogram *h)
{
	return h->total ? h->min : 0;
}

uint64_t histogram_max(const struct histogram *h)
{
	return h->max;
}

double histogram_mean(const struct histogram *h)
{
	double sum = 0;

	if (!h->total)
		return 0;
	for (unsigned i = 0; i < SLOTS; i++)
		if (h->counts[i])
			sum += (double)h->counts[i] * slot_middle(i);
	return sum / (double)h->total;
}

double histogram_stddev(const struct histogram *h)
{
	double mean = histogram_mean(h), sum = 0;

	if (!h->total)
		return 0;
	for (unsigned i = 0; i < SLOTS; i++)
		if (h->counts[i])
			sum += (double)h->counts[i] * (slot_middle(i) - mean) *
			       (slot_middle(i) - mean);
	return sqrt(sum / (double)h->total);
}

/* A slot's upper end, but never above what was really recorded. */
static uint64_t reported(const struct histogram *h, unsigned slot)
{
	uint64_t high = slot_highest(slot);

	return high > h->max ? h->max : high;
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	uint64_t need, seen = 0;

	if (!h->total)
		return 0;
	percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
	need = (uint64_t)ceil(percent / 100 * (double)h->total - 1e-9);
	if (!need)
		need = 1;
	for (unsigned i = 0; i < SLOTS; i++) {
		seen += h->counts[i];
		if (seen >= need)
			return reported(h, i);
	}
	return h->max;
}

/* The next level to report: TICKS_PER_HALF for each halving of the distance to 100 %. */
static double next_level(double level)
{
	double halvings = floor(log2(100 / (100 - level))) + 1;

	return level + 100 / (TICKS_PER_HALF * pow(2, halvings));
}

static void write_levels(const struct histogram *h, double scale, FILE *to)
{
	double level = 0;
	uint64_t seen = 0;

	for (unsigned i = 0; i < SLOTS && seen < h->total; i++) {
		if (!h->counts[i])
			continue;
		seen += h->counts[i];
		while (100.0 * (double)seen / (double)h->total >= level && level < 100) {
			fprintf(to, "%12.3f %2.12f %10llu %14.2f\n",
				(double)reported(h, i) / scale, level / 100,
				(unsigned long long)seen, 100 / (100 - level));
			if (seen == h->total)
				break;
			level = next_level(level);
		}
	}
	if (h->total)
		fprintf(to, "%12.3f %2.12f %10llu\n", (double)h->max / scale, 1.0,
			(unsigned long long)h->total);
}

int histogram_write_percentiles(const struct histogram *h, double scale, FILE *to)
{
	fprintf(to, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
		"1/(1-Percentile)");
	write_levels(h, scale, to);
	fprintf(to, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
		histogram_mean(h) / scale, histogram_stddev(h) / scale);
	fprintf(to, "#[Max     = %12.3f, Total count    = %12llu]\n", (double)h->max / scale,
		(unsigned long long)h->total);
	fprintf(to, "#[Buckets = %12u, SubBuckets     = %12u]\n", (unsigned)BUCKETS, SUB_COUNT);
	if (fflush(to) || ferror(to))
		return errno ? -errno : -EIO;
	return 0;
}
