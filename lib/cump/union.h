/* SPDX-License-Identifier: MIT */
/*
 * The camouflage union memory page (CUMP): one set of bitmaps over the memory of a VM and of its
 * vTPM's domain, by which both are copied page by page as if they were one machine.
 *
 * Of each member, by guest frame number: to_send, what was dirty when its log was last read
 * and cleared; to_skip, what has become dirty again since; deferred, what an earlier round
 * was to send and did not. The union has page n for page n of both (the paper's tables 1
 * and 2: to_send and to_skip are each the OR of the members'); table 3 decides: page n is sent
 * where the union's to_send is 1 and its to_skip 0, from each member whose own to_send is 1.
 *
 * What table 3 holds back is no longer in any dirty log if it was the other member that was
 * written, so that the log alone would lose it: it is carried over in `deferred`, and is part
 * of the next round's to_send.
 *
 * Words of 64 pages, page n is bit n % 64 of word n / 64. Nothing here knows a hypervisor or a
 * socket; nothing is locked.
 */
#ifndef CUMP_UNION_H
#define CUMP_UNION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cump_member { CUMP_VM, CUMP_VTPM, CUMP_MEMBERS };

enum cump_policy {
	CUMP_UNION,	  /* tables 1 to 3: a page that either member is writing waits for both */
	CUMP_INDEPENDENT, /* each member by its own bitmaps */
};

struct cump_map {
	uint64_t pages; /* gfns 0 … pages - 1 */
	size_t words;
	uint64_t *to_send, *to_skip, *deferred; /* bits at and beyond `pages` are 0 */
};

struct cump {
	enum cump_policy policy;
	size_t words; /* of the larger member */
	struct cump_map member[CUMP_MEMBERS];
};

/* "cump", "independent"; and back, -EINVAL. */
const char *cump_policy_name(enum cump_policy policy);
int cump_policy_parse(const char *text, enum cump_policy *policy);

/* Bitmaps for members of so many pages (0: a member without memory), all 0. -ENOMEM, -E2BIG. */
int cump_init(struct cump *c, const uint64_t pages[CUMP_MEMBERS], enum cump_policy policy);
void cump_free(struct cump *c);

/* The first round: every page of both is to be sent, nothing is to be skipped. */
void cump_begin(struct cump *c);

/* The union's word @w as tables 1 and 2 derive it. */
struct cump_word {
	uint64_t to_send, to_skip;
};
struct cump_word cump_union(const struct cump *c, size_t w);

/* Table 3: the pages of a union's word that are sent. */
static inline uint64_t cump_sent(struct cump_word u)
{
	return u.to_send & ~u.to_skip;
}

/*
 * Decide over words @from … @to - 1: what was deferred joins to_send; then to_send keeps what is sent
 * now, by the policy and the present to_skip, and deferred takes the rest. Done once at a
 * round's start over all, and again, after a new look at the dirty log, over what has
 * not been sent yet: nothing is lost by doing it twice.
 */
void cump_decide(struct cump *c, size_t from, size_t to);

/* The last round, both members stopped: all that is to be sent or was deferred is sent. */
void cump_decide_all(struct cump *c);

/* The round was left at word @from: what it has not sent is deferred. */
void cump_leave(struct cump *c, size_t from);

/* The first word from @from on of which pages of @member are to be sent now; its number of words or more: none. */
size_t cump_next(const struct cump *c, enum cump_member member, size_t from);

/*
 * Pages of @member to be sent now, out of words *@word … @to - 1, into @gfn (at most @max, ≥ 64); they are
 * taken out of to_send. *@word moves to where to go on. Returns how many.
 */
size_t cump_take(struct cump *c, enum cump_member member, size_t *word, size_t to, uint64_t *gfn,
		 size_t max);

/* @gfn could not be sent (its mapping failed, it may be gone): it is deferred. */
void cump_put_back(struct cump *c, enum cump_member member, uint64_t gfn);

/* Pages of @member to be sent in this round still, and deferred. */
uint64_t cump_to_send(const struct cump *c, enum cump_member member);
uint64_t cump_deferred(const struct cump *c, enum cump_member member);

#endif
