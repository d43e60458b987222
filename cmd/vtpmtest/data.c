/* SPDX-License-Identifier: MIT */
/* The random data of each tick, and OpenSSL's opinion of its digest. */
#include "vtpmtest.h"

#include <endian.h>
#include <string.h>

static uint64_t mix(uint64_t z)
{
	/* splitmix64 (Steele, Lea, Flood 2014): any tick's data without those before it */
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void vt_fill(uint64_t seed, uint64_t tick, uint8_t *data, size_t n)
{
	uint64_t state = mix(seed ^ mix(tick));

	for (size_t i = 0; i < n; i += 8) {
		uint64_t word = htole64(mix(state += UINT64_C(0x9e3779b97f4a7c15)));

		memcpy(data + i, &word, n - i < 8 ? n - i : 8);
	}
}

void vt_digest_begin(struct vt_worker *w)
{
	EVP_DigestInit_ex(w->md_ctx, w->md, NULL);
}

void vt_digest_add(struct vt_worker *w, const void *data, size_t n)
{
	EVP_DigestUpdate(w->md_ctx, data, n);
}

void vt_digest_end(struct vt_worker *w, uint8_t *digest)
{
	/* OpenSSL failing here would be a digest of zeros: it then differs, and is seen. */
	memset(digest, 0, TPM_DIGEST_MAX);
	EVP_DigestFinal_ex(w->md_ctx, digest, NULL);
}

bool vt_digest_is(const struct vt_worker *w, const uint8_t *a, const uint8_t *b)
{
	return !memcmp(a, b, w->conf->alg->size);
}

void vt_remember(struct vt_worker *w, uint64_t tick, const uint8_t *digest)
{
	struct vt_recent *r = &w->recent[w->recent_next++ % VT_RECENT];

	r->tick = tick;
	memcpy(r->digest, digest, w->conf->alg->size);
}

uint64_t vt_recall(const struct vt_worker *w, const uint8_t *digest)
{
	for (unsigned i = 0; i < VT_RECENT; i++)
		if (w->recent[i].tick && vt_digest_is(w, w->recent[i].digest, digest))
			return w->recent[i].tick;
	return 0;
}
