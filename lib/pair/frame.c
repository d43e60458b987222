/* SPDX-License-Identifier: MIT */
#include "pair/frame.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* the same hash, by the widest vectors this machine has */
#else
#include <xxhash.h>
#endif
#include <zstd.h>

int bytes_add(struct bytes *b, const void *data, size_t n)
{
	uint8_t *to = bytes_reserve(b, n);

	if (!to)
		return -ENOMEM;
	memcpy(to, data, n);
	b->end += n;
	return 0;
}

uint8_t *bytes_reserve(struct bytes *b, size_t n)
{
	if (b->begin && b->room - b->end < n) {
		memmove(b->data, b->data + b->begin, b->end - b->begin);
		b->end -= b->begin;
		b->begin = 0;
	}
	if (!b->data || b->room - b->end < n) {
		size_t room = b->room ? b->room : 4096;
		uint8_t *data;

		while (room - b->end < n)
			room *= 2;
		data = realloc(b->data, room);
		if (!data)
			return NULL;
		b->data = data;
		b->room = room;
	}
	return b->data + b->end;
}

void bytes_take(struct bytes *b, size_t n)
{
	b->begin += n;
	if (b->begin == b->end)
		b->begin = b->end = 0;
}

size_t bytes_size(const struct bytes *b)
{
	return b->end - b->begin;
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

struct mux {
	ZSTD_CCtx *zstd; /* NULL: nothing is compressed */
	uint64_t sequence;
};

struct mux *mux_new(int zstd_level, bool compress)
{
	struct mux *m = calloc(1, sizeof(*m));

	if (!m || !compress)
		return m;
	m->zstd = ZSTD_createCCtx();
	if (!m->zstd) {
		free(m);
		return NULL;
	}
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_compressionLevel,
			       zstd_level ? zstd_level : FRAME_FAST);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_windowLog, FRAME_WINDOW_LOG);
	return m;
}

void mux_free(struct mux *m)
{
	if (!m)
		return;
	ZSTD_freeCCtx(m->zstd);
	free(m);
}

/* One batch of the running zstd stream, flushed so that the other end can unpack it at once. */
static int pack_batch(struct mux *m, const void *data, size_t n, struct bytes *out, size_t *packed)
{
	size_t bound = ZSTD_compressBound(n) + 64, left;
	uint8_t *to = bytes_reserve(out, bound);
	ZSTD_inBuffer in = {data, n, 0};
	ZSTD_outBuffer ob = {to, bound, 0};

	if (!to)
		return -ENOMEM;
	do {
		left = ZSTD_compressStream2(m->zstd, &ob, &in, ZSTD_e_flush);
		if (ZSTD_isError(left) || (left && ob.pos == ob.size))
			return -EIO;
	} while (left || in.pos < in.size);
	out->end += ob.pos;
	*packed = ob.pos;
	return 0;
}

static void seal(struct mux *m, struct frame_header *h, uint8_t *at, size_t length, size_t raw)
{
	h->magic = htole32(FRAME_MAGIC);
	h->length = htole32((uint32_t)length);
	h->raw_length = htole32((uint32_t)raw);
	h->sequence = htole64(m->sequence);
	h->checksum = htole64(XXH3_64bits_withSeed(at + sizeof(*h), length, m->sequence));
	m->sequence++;
	memcpy(at, h, sizeof(*h));
}

uint8_t *mux_room(struct bytes *out, size_t n)
{
	uint8_t *at = bytes_reserve(out, sizeof(struct frame_header) + n);

	return at ? at + sizeof(struct frame_header) : NULL;
}

void mux_data(struct mux *m, uint8_t owner, size_t n, struct bytes *out)
{
	struct frame_header h = {.type = FRAME_DATA, .owner = owner};

	seal(m, &h, out->data + out->end, n, n);
	out->end += sizeof(h) + n;
}

int mux_frame(struct mux *m, enum frame_type type, uint8_t owner, const void *data, size_t n,
	      bool pack, struct bytes *out)
{
	struct frame_header h = {.type = (uint8_t)type, .owner = owner};
	size_t head, length = n;
	int rc;

	if (n > FRAME_MAX)
		return -EMSGSIZE;
	rc = bytes_add(out, &h, sizeof(h)); /* room for it; sealed below */
	if (rc)
		return rc;
	head = bytes_size(out) - sizeof(h);
	if (type == FRAME_DATA && pack && m->zstd) {
		h.flags = htole16(FRAME_ZSTD);
		rc = pack_batch(m, data, n, out, &length);
	} else if (n) {
		rc = bytes_add(out, data, n);
	}
	if (rc)
		return rc;
	seal(m, &h, out->data + out->begin + head, length, n);
	return 0;
}

struct demux {
	const struct demux_events *events;
	void *ctx;
	ZSTD_DCtx *zstd;
	struct bytes in;
	uint8_t *raw; /* FRAME_MAX bytes, and one to see that there are no more */
	uint64_t sequence;
	bool allowed[PAIR_MEMBERS], ended[PAIR_MEMBERS];
};

struct demux *demux_new(const struct demux_events *events, void *ctx)
{
	struct demux *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->events = events;
	d->ctx = ctx;
	return d;
}

void demux_free(struct demux *d)
{
	if (!d)
		return;
	ZSTD_freeDCtx(d->zstd);
	bytes_free(&d->in);
	free(d->raw);
	free(d);
}

void demux_allow(struct demux *d, unsigned owner, bool allowed)
{
	d->allowed[owner] = allowed;
}

static int check_owner(struct demux *d, const struct frame_header *h, struct err *err)
{
	if (h->type == FRAME_MESSAGE || h->type == FRAME_PING) {
		if (h->owner != FRAME_OWNER_PAIR)
			return err_set(err, -EPROTO, "read stream: a message with owner %u", h->owner);
		return 0;
	}
	if (h->owner >= PAIR_MEMBERS || !d->allowed[h->owner])
		return err_set(err, -EPROTO, "read stream: data of a member (%u) that was not let in",
			       h->owner);
	if (d->ended[h->owner])
		return err_set(err, -EPROTO, "read stream: data of member %u after its end", h->owner);
	return 0;
}

static int check_header(struct demux *d, struct frame_header *h, struct err *err)
{
	h->magic = le32toh(h->magic);
	h->flags = le16toh(h->flags);
	h->length = le32toh(h->length);
	h->raw_length = le32toh(h->raw_length);
	h->sequence = le64toh(h->sequence);
	h->checksum = le64toh(h->checksum);
	if (h->magic != FRAME_MAGIC)
		return err_set(err, -EPROTO, "read stream: not a cump-migrate stream");
	if (h->type < FRAME_MESSAGE || h->type > FRAME_PING)
		return err_set(err, -EPROTO, "read stream: unknown frame type %u", h->type);
	if (h->flags & ~FRAME_ZSTD || ((h->flags & FRAME_ZSTD) && h->type != FRAME_DATA))
		return err_set(err, -EPROTO, "read stream: unknown flags %#x", h->flags);
	if (h->length > ZSTD_COMPRESSBOUND(FRAME_MAX) + 64 || h->raw_length > FRAME_MAX ||
	    (!(h->flags & FRAME_ZSTD) && h->length != h->raw_length))
		return err_set(err, -EPROTO, "read stream: frame of %u bytes", h->length);
	if ((h->type == FRAME_END || h->type == FRAME_PING) && h->length)
		return err_set(err, -EPROTO, "read stream: frame type %u with a payload", h->type);
	if (h->sequence != d->sequence)
		return err_set(err, -EILSEQ, "read stream: frame %llu where %llu was due",
			       (unsigned long long)h->sequence, (unsigned long long)d->sequence);
	return check_owner(d, h, err);
}

/* Who sends nothing packed takes no megabytes of us. */
static int open_zstd(struct demux *d)
{
	d->raw = d->raw ? d->raw : malloc(FRAME_MAX + 1);
	d->zstd = d->zstd ? d->zstd : ZSTD_createDCtx();
	if (!d->raw || !d->zstd)
		return -ENOMEM;
	return ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, FRAME_WINDOW_LOG))
		       ? -ENOMEM
		       : 0;
}

/*
 * Unpack to exactly raw_length bytes, no more, no less. One byte more is offered: what zstd
 * has no room for it would keep, and hand out at the head of the next frame.
 */
static int unpack(struct demux *d, const uint8_t *data, const struct frame_header *h,
		  struct err *err)
{
	ZSTD_inBuffer in = {data, h->length, 0};
	ZSTD_outBuffer out = {d->raw, (size_t)h->raw_length + 1, 0};

	if (!out.dst) {
		if (open_zstd(d))
			return err_set(err, -ENOMEM, "unpack stream: out of memory");
		out.dst = d->raw;
	}
	for (;;) {
		size_t before = in.pos + out.pos;
		size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);

		if (ZSTD_isError(rc))
			return err_set(err, -EBADMSG, "unpack stream: %s", ZSTD_getErrorName(rc));
		if (in.pos + out.pos == before)
			break;
	}
	if (in.pos != in.size || out.pos != h->raw_length)
		return err_set(err, -EBADMSG, "unpack stream: length does not agree");
	return 0;
}

static int deliver(struct demux *d, const struct frame_header *h, const uint8_t *payload,
		   struct err *err)
{
	size_t n = h->length;
	int rc = 0;

	if (XXH3_64bits_withSeed(payload, n, h->sequence) != h->checksum)
		return err_set(err, -EBADMSG, "read stream: checksum of frame %llu is wrong",
			       (unsigned long long)h->sequence);
	if (h->flags & FRAME_ZSTD) {
		rc = unpack(d, payload, h, err);
		if (rc)
			return rc;
		payload = d->raw;
		n = h->raw_length;
	}
	if (h->type == FRAME_MESSAGE)
		rc = d->events->message(d->ctx, (const char *)payload, n);
	else if (h->type == FRAME_DATA)
		rc = d->events->data(d->ctx, h->owner, payload, n);
	else if (h->type == FRAME_END) {
		d->ended[h->owner] = true;
		rc = d->events->end(d->ctx, h->owner);
	}
	return rc ? err_sys(err, rc, "take in frame") : 0;
}

uint8_t *demux_room(struct demux *d, size_t n)
{
	return bytes_reserve(&d->in, n);
}

int demux_feed(struct demux *d, const void *data, size_t n, struct err *err)
{
	int rc = 0;

	if (data)
		rc = bytes_add(&d->in, data, n);
	else
		d->in.end += n;
	if (rc)
		return err_set(err, rc, "read stream: out of memory");
	while (bytes_size(&d->in) >= sizeof(struct frame_header)) {
		const uint8_t *at = d->in.data + d->in.begin;
		struct frame_header h;

		memcpy(&h, at, sizeof(h));
		rc = check_header(d, &h, err);
		if (rc)
			return rc;
		if (bytes_size(&d->in) < sizeof(h) + h.length)
			break;
		d->sequence++;
		rc = deliver(d, &h, at + sizeof(h), err);
		if (rc)
			return rc;
		bytes_take(&d->in, sizeof(h) + h.length);
	}
	return 0;
}
