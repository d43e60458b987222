/* SPDX-License-Identifier: MIT */
/* Big-endian writing and reading that cannot leave its buffer; errors are kept, not returned. */
#ifndef TPM_MARSHAL_H
#define TPM_MARSHAL_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tpm_writer {
	uint8_t *buf;
	size_t size, n;
	bool bad;
};

struct tpm_reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline void put_bytes(struct tpm_writer *w, const void *data, size_t n)
{
	if (w->bad || n > w->size - w->n) {
		w->bad = true;
		return;
	}
	if (n)
		memcpy(w->buf + w->n, data, n);
	w->n += n;
}

static inline void put_u8(struct tpm_writer *w, uint8_t v)
{
	put_bytes(w, &v, 1);
}

static inline void put_u16(struct tpm_writer *w, uint16_t v)
{
	v = htobe16(v);
	put_bytes(w, &v, 2);
}

static inline void put_u32(struct tpm_writer *w, uint32_t v)
{
	v = htobe32(v);
	put_bytes(w, &v, 4);
}

static inline void get_bytes(struct tpm_reader *r, void *out, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		memset(out, 0, n);
		return;
	}
	memcpy(out, r->p, n);
	r->p += n;
	r->left -= n;
}

static inline void get_skip(struct tpm_reader *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return;
	}
	r->p += n;
	r->left -= n;
}

static inline uint8_t get_u8(struct tpm_reader *r)
{
	uint8_t v;

	get_bytes(r, &v, 1);
	return v;
}

static inline uint16_t get_u16(struct tpm_reader *r)
{
	uint16_t v;

	get_bytes(r, &v, 2);
	return be16toh(v);
}

static inline uint32_t get_u32(struct tpm_reader *r)
{
	uint32_t v;

	get_bytes(r, &v, 4);
	return be32toh(v);
}

#endif
