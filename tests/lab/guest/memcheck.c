/* SPDX-License-Identifier: MIT */
/*
 * memcheck [--nonce HEX] [--pages N] [--json] DUMP: verify memwriter's pages in a dump of a stopped
 * guest's memory, raw (QMP pmemsave) or an ELF core (QMP dump-guest-memory).
 *
 * memwriter writes pages in order, pass after pass. In a guest that was stopped, and whose every page
 * arrived as it last was, pages 0 to e-1 are therefore of pass n and the others of pass n-1: one edge,
 * and at most page e-1 is half written. A page of an older pass, an older suffix, a missing or a
 * doubled page is a page that was lost.
 * 0: as it should be. 1: not. 2: usage. 3: the dump cannot be read.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mempage.h"

#define MAX_COMPLAINTS 20

struct check {
	bool nonce_known;
	uint64_t nonce;
	uint64_t pages;	      /* as the pages themselves say; 0 until the first one is seen */
	const uint64_t **at;  /* by index: where it is in the dump */
	uint64_t found, foreign, bad;
};

static void complain(struct check *c, const char *what, uint64_t index, uint64_t value)
{
	if (c->bad++ < MAX_COMPLAINTS)
		fprintf(stderr, "memcheck: page %" PRIu64 ": %s %" PRIu64 "\n", index, what, value);
}

static void take_page(struct check *c, const uint64_t *page)
{
	uint64_t index = page[MEMPAGE_INDEX], pages = page[MEMPAGE_PAGES];

	if (!c->nonce_known) {
		c->nonce_known = true;
		c->nonce = page[MEMPAGE_NONCE];
	}
	if (page[MEMPAGE_NONCE] != c->nonce) {
		c->foreign++;
		return;
	}
	if (!c->pages && pages >= 2 && pages <= UINT64_C(1) << 36) {
		c->at = calloc(pages, sizeof(*c->at));
		if (!c->at) {
			fputs("memcheck: out of memory\n", stderr);
			exit(3);
		}
		c->pages = pages;
	}
	if (pages != c->pages || index >= c->pages) {
		complain(c, "head is damaged: number of pages", index, pages);
		return;
	}
	if (c->at[index]) {
		complain(c, "is there twice, the second of pass", index, page[MEMPAGE_PASS]);
		return;
	}
	c->at[index] = page;
	c->found++;
}

static void scan(struct check *c, const uint8_t *mem, uint64_t size)
{
	for (uint64_t o = 0; o + MEMPAGE_SIZE <= size; o += MEMPAGE_SIZE) {
		const uint64_t *page = (const uint64_t *)(const void *)(mem + o);

		if (page[MEMPAGE_MAGIC] == MEMPAGE_MAGIC_WORD)
			take_page(c, page);
	}
}

/* The segments of a core are guest memory; they are not always page-aligned in the file. */
static int scan_core(struct check *c, const uint8_t *map, uint64_t size)
{
	const Elf64_Ehdr *ehdr = (const void *)map;

	if (size < sizeof(*ehdr) || ehdr->e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr->e_phentsize != sizeof(Elf64_Phdr) || ehdr->e_phoff > size ||
	    (size - ehdr->e_phoff) / sizeof(Elf64_Phdr) < ehdr->e_phnum)
		return -EINVAL;
	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		Elf64_Phdr ph;

		memcpy(&ph, map + ehdr->e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type != PT_LOAD)
			continue;
		if (ph.p_offset > size || size - ph.p_offset < ph.p_filesz || ph.p_offset % 8)
			return -EINVAL;
		scan(c, map + ph.p_offset, ph.p_filesz);
	}
	return 0;
}

/* Number of leading words of @page that are of @pass; MEMPAGE_WORDS is a whole page. */
static unsigned int words_of_pass(const uint64_t *page, uint64_t nonce, uint64_t index,
				  uint64_t pass, unsigned int from)
{
	const uint64_t seed = mempage_seed(nonce, index, pass);
	unsigned int i = from;

	while (i < MEMPAGE_WORDS && page[i] == mempage_word(seed, i))
		i++;
	return i;
}

/* *@edge: the first page that the newest pass has not begun; @pages if it is complete. */
static void verify(struct check *c, uint64_t *newest, uint64_t *edge, int64_t *torn)
{
	*edge = 0;
	*newest = 0;
	*torn = -1;
	for (uint64_t k = 0; k < c->pages; k++) {
		if (!c->at[k])
			complain(c, "is missing of", k, c->pages);
		else if (c->at[k][MEMPAGE_PASS] > *newest)
			*newest = c->at[k][MEMPAGE_PASS];
	}
	while (*edge < c->pages && (!c->at[*edge] || c->at[*edge][MEMPAGE_PASS] == *newest))
		(*edge)++;
	for (uint64_t k = 0; k < c->pages; k++) {
		const uint64_t *page = c->at[k];
		uint64_t pass, want = k < *edge ? *newest : *newest - 1;
		unsigned int n;

		if (!page)
			continue;
		pass = page[MEMPAGE_PASS];
		if (pass != want)
			complain(c, "is of another pass than its neighbours:", k, pass);
		n = words_of_pass(page, c->nonce, k, pass, MEMPAGE_FILL);
		if (n == MEMPAGE_WORDS)
			continue;
		if (k + 1 == *edge && pass == *newest && pass > 1 &&
		    words_of_pass(page, c->nonce, k, pass - 1, n) == MEMPAGE_WORDS)
			*torn = n;
		else
			complain(c, "differs from its pass at byte", k, n * 8);
	}
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "nonce", required_argument, NULL, 'n' },
		{ "pages", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct check c = { 0 };
	uint64_t newest, edge, want_pages = 0;
	const uint8_t *map;
	int64_t torn;
	struct stat st;
	bool json = false;
	int opt, fd;

	while ((opt = getopt_long(argc, argv, "n:p:j", longopts, NULL)) != -1) {
		switch (opt) {
		case 'n':
			c.nonce = strtoull(optarg, NULL, 16);
			c.nonce_known = true;
			break;
		case 'p':
			want_pages = strtoull(optarg, NULL, 10);
			break;
		case 'j':
			json = true;
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc) {
		fputs("usage: memcheck [--nonce HEX] [--pages N] [--json] DUMP\n", stderr);
		return 2;
	}
	fd = open(argv[optind], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || st.st_size < MEMPAGE_SIZE)
		goto unreadable;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		goto unreadable;
	if (memcmp(map, ELFMAG, SELFMAG) != 0) {
		scan(&c, map, (uint64_t)st.st_size);
	} else if (scan_core(&c, map, (uint64_t)st.st_size)) {
		errno = EINVAL;
		goto unreadable;
	}

	verify(&c, &newest, &edge, &torn);
	if (!c.found)
		complain(&c, "no page of the writer's among", 0, (uint64_t)st.st_size / MEMPAGE_SIZE);
	if (want_pages && c.pages != want_pages)
		complain(&c, "of a writer of another size, pages", 0, c.pages);
	if (json)
		printf("{\"schema\":\"lab-memcheck-1\",\"verdict\":\"%s\",\"nonce\":\"%016" PRIx64
		       "\",\"pages\":%" PRIu64 ",\"found\":%" PRIu64 ",\"foreign\":%" PRIu64
		       ",\"pass\":%" PRIu64 ",\"edge\":%" PRIu64 ",\"torn_word\":%" PRId64
		       ",\"bad\":%" PRIu64 "}\n",
		       c.bad ? "bad" : "good", c.nonce, c.pages, c.found, c.foreign, newest, edge, torn,
		       c.bad);
	else
		printf("memcheck: %s: %" PRIu64 " of %" PRIu64 " pages, nonce %016" PRIx64
		       ", pass %" PRIu64 " up to page %" PRIu64 "%s, %" PRIu64 " bad\n",
		       c.bad ? "BAD" : "good", c.found, c.pages, c.nonce, newest, edge,
		       torn >= 0 ? " (half written)" : "", c.bad);
	return c.bad != 0;
unreadable:
	fprintf(stderr, "memcheck: read %s: %s\n", argv[optind], errno ? strerror(errno) : "too short");
	return 3;
}
