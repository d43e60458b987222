/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram with three significant digits over 1 … 2^42 (ns: 73 minutes),
 * bucket for bucket that of HdrHistogram, so that its file can be read by its plotter.
 * One writer at a time; merge those of several threads at the end.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_MAX ((UINT64_C(1) << 42) - 1) /* larger values count as this one */

struct histogram;

struct histogram *histogram_new(void); /* NULL: no memory */
void histogram_free(struct histogram *h);

void histogram_record(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

uint64_t histogram_count(const struct histogram *h);
uint64_t histogram_min(const struct histogram *h); /* exact; 0 if empty */
uint64_t histogram_max(const struct histogram *h); /* exact; 0 if empty */
double histogram_mean(const struct histogram *h);
double histogram_stddev(const struct histogram *h);

/* The value that @percent (0 … 100) of all values do not exceed, to three digits; 0 if empty. */
uint64_t histogram_percentile(const struct histogram *h, double percent);

/*
 * HdrHistogram's percentile distribution text, values divided by @scale (1e6: ns as ms).
 * 0, or -errno of the stream.
 */
int histogram_write_percentiles(const struct histogram *h, double scale, FILE *to);

#endif
