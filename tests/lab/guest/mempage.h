/* SPDX-License-Identifier: MIT */
/*
 * What memwriter writes into every page of its memory, and memcheck looks for in a dump.
 * A page is 512 words. Words 0 to 3 never change; word 4, the pass, is the first one that a pass
 * writes, and the rest follow in ascending order. So a page that was interrupted holds a
 * prefix of one pass and a suffix of the pass before.
 */
#ifndef LAB_MEMPAGE_H
#define LAB_MEMPAGE_H

#include <stdint.h>

#define MEMPAGE_SIZE  4096
#define MEMPAGE_WORDS (MEMPAGE_SIZE / 8)
#define MEMPAGE_MAGIC_WORD UINT64_C(0x6d656d7061676531) /* "mempage1" */

enum { MEMPAGE_MAGIC, MEMPAGE_NONCE, MEMPAGE_PAGES, MEMPAGE_INDEX, MEMPAGE_PASS, MEMPAGE_FILL };

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static inline uint64_t mempage_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Seed of a page's fill; mixed per field, so that no two (index, pass) share a stream. */
static inline uint64_t mempage_seed(uint64_t nonce, uint64_t index, uint64_t pass)
{
	return mempage_mix(mempage_mix(mempage_mix(nonce) + index) + pass);
}

/* Word @i (from MEMPAGE_FILL on) of the page with that seed. */
static inline uint64_t mempage_word(uint64_t seed, unsigned int i)
{
	return mempage_mix(seed + i * UINT64_C(0x9e3779b97f4a7c15));
}

#endif
