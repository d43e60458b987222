/* SPDX-License-Identifier: MIT */
/* Frames: what goes in comes out at every split, and nothing comes out that was not checked. */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>
#include <zstd.h>

#include "pair/frame.h"

#define HEAD sizeof(struct frame_header)

/* What the callbacks were given, one "[type owner size]bytes" after the other. */
struct seen {
	struct bytes log;
	unsigned messages, data, ends;
	int rc;
};

static int note(struct seen *s, char type, unsigned owner, const void *data, size_t n)
{
	unsigned char head[6] = {(unsigned char)type, (unsigned char)owner, (unsigned char)(n >> 24),
				 (unsigned char)(n >> 16), (unsigned char)(n >> 8), (unsigned char)n};

	assert_int_equal(bytes_add(&s->log, head, sizeof(head)), 0);
	if (n)
		assert_int_equal(bytes_add(&s->log, data, n), 0);
	return s->rc;
}

static int on_message(void *ctx, const char *json, size_t n)
{
	((struct seen *)ctx)->messages++;
	return note(ctx, 'm', 0, json, n);
}

static int on_data(void *ctx, unsigned owner, const uint8_t *data, size_t n)
{
	((struct seen *)ctx)->data++;
	return note(ctx, 'd', owner, data, n);
}

static int on_end(void *ctx, unsigned owner)
{
	((struct seen *)ctx)->ends++;
	return note(ctx, 'e', owner, NULL, 0);
}

static const struct demux_events events = {on_message, on_data, on_end};

static struct demux *open_demux(struct seen *s)
{
	struct demux *d = demux_new(&events, s);

	assert_non_null(d);
	demux_allow(d, 0, true);
	demux_allow(d, 1, true);
	return d;
}

static void add(struct mux *m, enum frame_type type, unsigned owner, const void *data, size_t n,
		bool pack, struct bytes *out)
{
	assert_int_equal(mux_frame(m, type, (uint8_t)owner, data, n, pack, out), 0);
}

/* A stream with everything in it; @expect as the callbacks should see it. */
static void make_stream(struct bytes *out, struct seen *expect)
{
	static const char hello[] = "{\"type\":\"hello\"}";
	struct mux *m = mux_new(0, true);
	uint8_t page[300];

	assert_non_null(m);
	for (unsigned i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7 % 31);
	add(m, FRAME_MESSAGE, FRAME_OWNER_PAIR, hello, strlen(hello), true, out);
	note(expect, 'm', 0, hello, strlen(hello));
	add(m, FRAME_DATA, 0, page, sizeof(page), true, out);
	note(expect, 'd', 0, page, sizeof(page));
	add(m, FRAME_PING, FRAME_OWNER_PAIR, NULL, 0, false, out);
	add(m, FRAME_DATA, 1, page + 1, 90, false, out);
	note(expect, 'd', 1, page + 1, 90);
	add(m, FRAME_DATA, 1, page, sizeof(page), true, out);
	note(expect, 'd', 1, page, sizeof(page));
	add(m, FRAME_END, 1, NULL, 0, false, out);
	note(expect, 'e', 1, NULL, 0);
	add(m, FRAME_DATA, 0, page, 1, true, out);
	note(expect, 'd', 0, page, 1);
	add(m, FRAME_END, 0, NULL, 0, true, out);
	note(expect, 'e', 0, NULL, 0);
	mux_free(m);
}

static void assert_same(const struct seen *a, const struct seen *b)
{
	assert_int_equal(bytes_size(&a->log), bytes_size(&b->log));
	assert_memory_equal(a->log.data + a->log.begin, b->log.data + b->log.begin,
			    bytes_size(&a->log));
}

static void every_split(void **state)
{
	struct bytes stream = {0};
	struct seen expect = {0};
	size_t n;

	(void)state;
	make_stream(&stream, &expect);
	n = bytes_size(&stream);
	for (size_t cut = 0; cut <= n; cut++) {
		struct seen s = {0};
		struct demux *d = open_demux(&s);
		struct err err = {0};

		assert_int_equal(demux_feed(d, stream.data, cut, &err), 0);
		assert_int_equal(demux_feed(d, stream.data + cut, n - cut, &err), 0);
		assert_same(&s, &expect);
		demux_free(d);
		bytes_free(&s.log);
	}
	for (size_t piece = 1; piece < 70; piece++) {
		struct seen s = {0};
		struct demux *d = open_demux(&s);
		struct err err = {0};

		for (size_t at = 0; at < n; at += piece)
			assert_int_equal(demux_feed(d, stream.data + at,
						    n - at < piece ? n - at : piece, &err), 0);
		assert_same(&s, &expect);
		demux_free(d);
		bytes_free(&s.log);
	}
	bytes_free(&stream);
	bytes_free(&expect.log);
}

/* Large batches of every kind of bytes, packed and not in turn, through one queue that is drained. */
static void large_batches(void **state)
{
	struct mux *m = mux_new(1, true);
	struct bytes out = {0};
	struct seen s = {0};
	struct demux *d = open_demux(&s);
	uint8_t *batch = malloc(FRAME_MAX);
	uint32_t x = 1;

	(void)state;
	assert_non_null(m);
	assert_non_null(batch);
	for (unsigned k = 0; k < 24; k++) {
		size_t n = k % 5 ? (size_t)FRAME_MAX / (k + 1) + k : FRAME_MAX;
		struct err err = {0};

		for (size_t i = 0; i < n; i++) {
			x = x * 1664525 + 1013904223;
			batch[i] = k % 3 == 0 ? 0 : k % 3 == 1 ? (uint8_t)(x >> 24) : (uint8_t)(i / 64);
		}
		add(m, FRAME_DATA, k & 1, batch, n, k % 4 != 3, &out);
		bytes_take(&s.log, bytes_size(&s.log));
		if (demux_feed(d, out.data + out.begin, bytes_size(&out), &err))
			fail_msg("%s", err.text);
		bytes_take(&out, bytes_size(&out));
		assert_int_equal(bytes_size(&s.log), n + 6);
		assert_memory_equal(s.log.data + s.log.begin + 6, batch, n);
	}
	free(batch);
	mux_free(m);
	demux_free(d);
	bytes_free(&out);
	bytes_free(&s.log);
}

static void too_large_is_not_sent(void **state)
{
	static uint8_t batch[FRAME_MAX + 1];
	struct mux *m = mux_new(0, true);
	struct bytes out = {0};

	(void)state;
	assert_int_equal(mux_frame(m, FRAME_DATA, 0, batch, sizeof(batch), true, &out), -EMSGSIZE);
	assert_int_equal(bytes_size(&out), 0);
	mux_free(m);
	bytes_free(&out);
}

/* A page that either member sent before costs next to nothing. */
static void packing_spans_both_members(void **state)
{
	struct mux *m = mux_new(0, true);
	struct bytes out = {0};
	uint8_t page[65536];
	size_t first, second;
	uint32_t x = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(page); i++) {
		x = x * 1664525 + 1013904223;
		page[i] = (uint8_t)(x >> 24);
	}
	add(m, FRAME_DATA, 0, page, sizeof(page), true, &out);
	first = bytes_size(&out);
	add(m, FRAME_DATA, 1, page, sizeof(page), true, &out);
	second = bytes_size(&out) - first;
	assert_true(first > sizeof(page) * 9 / 10);
	assert_true(second < sizeof(page) / 10);
	mux_free(m);
	bytes_free(&out);
}

/* One frame, sealed by hand. Fields are as the caller set them; length and checksum are right. */
static void seal(struct frame_header h, const void *payload, size_t n, struct bytes *out)
{
	if (!h.magic)
		h.magic = htole32(FRAME_MAGIC);
	h.length = htole32((uint32_t)n);
	h.checksum = htole64(XXH3_64bits_withSeed(payload, n, le64toh(h.sequence)));
	assert_int_equal(bytes_add(out, &h, sizeof(h)), 0);
	assert_int_equal(bytes_add(out, payload, n), 0);
}

static struct frame_header data_frame(size_t raw)
{
	return (struct frame_header){.type = FRAME_DATA, .raw_length = htole32((uint32_t)raw)};
}

/* @stream is refused with @rc and words, delivers nothing, and nothing may follow. */
static void assert_refused(struct bytes *stream, int rc, const char *words)
{
	struct seen s = {0};
	struct demux *d = open_demux(&s);
	struct err err = {0};
	struct bytes good = {0};
	struct mux *m = mux_new(0, false);
	int got = demux_feed(d, stream->data + stream->begin, bytes_size(stream), &err);

	if (got != rc || err.code != rc || !strstr(err.text, words))
		fail_msg("%d '%s', not %d '%s'", got, err.text, rc, words);
	assert_int_equal(bytes_size(&s.log), 0);
	add(m, FRAME_DATA, 0, "good", 4, false, &good);
	assert_true(demux_feed(d, good.data, bytes_size(&good), &err) < 0);
	assert_int_equal(bytes_size(&s.log), 0);
	mux_free(m);
	demux_free(d);
	bytes_free(&good);
	bytes_free(&s.log);
	bytes_take(stream, bytes_size(stream));
}

static void wrong_headers(void **state)
{
	struct frame_header h;
	struct bytes b = {0};

	(void)state;
	h = data_frame(3);
	h.magic = htole32(FRAME_MAGIC + 1);
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "not a cump-migrate stream");
	h = data_frame(3);
	h.type = 0;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "frame type 0");
	h = data_frame(3);
	h.type = 5;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "frame type 5");
	h = data_frame(3);
	h.flags = htole16(2);
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "flags 0x2");
	h = data_frame(3);
	h.type = FRAME_MESSAGE;
	h.owner = FRAME_OWNER_PAIR;
	h.flags = htole16(FRAME_ZSTD);
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "flags 0x1");
	seal(data_frame(4), "abc", 3, &b);
	assert_refused(&b, -EPROTO, "frame of 3 bytes");
	h = data_frame(3);
	h.sequence = htole64(1);
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EILSEQ, "frame 1 where 0 was due");
	h = data_frame(3);
	h.type = FRAME_END;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "with a payload");
	h = data_frame(3);
	h.type = FRAME_PING;
	h.owner = FRAME_OWNER_PAIR;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "with a payload");
	bytes_free(&b);
}

static void wrong_lengths(void **state)
{
	struct frame_header h = data_frame(0);
	struct bytes b = {0};

	(void)state;
	/* Refused by the header alone: nobody waits for, or makes room for, four gigabytes. */
	h.magic = htole32(FRAME_MAGIC);
	h.length = h.raw_length = htole32(0xffffffff);
	bytes_add(&b, &h, sizeof(h));
	assert_refused(&b, -EPROTO, "frame of 4294967295 bytes");
	h.length = h.raw_length = htole32(FRAME_MAX + 1);
	bytes_add(&b, &h, sizeof(h));
	assert_refused(&b, -EPROTO, "frame of 1048577 bytes");
	h.flags = htole16(FRAME_ZSTD);
	h.length = htole32(100);
	bytes_add(&b, &h, sizeof(h));
	assert_refused(&b, -EPROTO, "frame of 100 bytes");
	h.raw_length = htole32(FRAME_MAX);
	h.length = htole32(2 * FRAME_MAX);
	bytes_add(&b, &h, sizeof(h));
	assert_refused(&b, -EPROTO, "frame of 2097152 bytes");
	bytes_free(&b);
}

static void wrong_owners(void **state)
{
	struct frame_header h = data_frame(3);
	struct bytes b = {0};

	(void)state;
	h.owner = PAIR_MEMBERS;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "data of a member (2) that was not let in");
	h.owner = FRAME_OWNER_PAIR;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "(255)");
	h.type = FRAME_MESSAGE;
	h.owner = 0;
	seal(h, "abc", 3, &b);
	assert_refused(&b, -EPROTO, "a message with owner 0");
	bytes_free(&b);
}

static void only_who_was_let_in(void **state)
{
	struct seen s = {0};
	struct demux *d = demux_new(&events, &s);
	struct mux *m = mux_new(0, true);
	struct bytes b = {0};
	struct err err = {0};

	(void)state;
	demux_allow(d, 1, true);
	add(m, FRAME_DATA, 1, "abc", 3, true, &b);
	assert_int_equal(demux_feed(d, b.data, bytes_size(&b), &err), 0);
	assert_int_equal(s.data, 1);
	bytes_take(&b, bytes_size(&b));
	add(m, FRAME_DATA, 0, "abc", 3, true, &b);
	assert_int_equal(demux_feed(d, b.data, bytes_size(&b), &err), -EPROTO);
	assert_non_null(strstr(err.text, "(0) that was not let in"));
	assert_int_equal(s.data, 1);
	mux_free(m);
	demux_free(d);
	bytes_free(&b);
	bytes_free(&s.log);
}

static void nothing_after_the_end(void **state)
{
	for (enum frame_type type = FRAME_DATA; type <= FRAME_END; type++) {
		struct seen s = {0};
		struct demux *d = open_demux(&s);
		struct mux *m = mux_new(0, false);
		struct bytes b = {0};
		struct err err = {0};

		(void)state;
		add(m, FRAME_END, 1, NULL, 0, false, &b);
		add(m, FRAME_DATA, 0, "on", 2, false, &b);
		assert_int_equal(demux_feed(d, b.data, bytes_size(&b), &err), 0);
		bytes_take(&b, bytes_size(&b));
		add(m, type, 1, "x", type == FRAME_DATA, false, &b);
		assert_int_equal(demux_feed(d, b.data, bytes_size(&b), &err), -EPROTO);
		assert_non_null(strstr(err.text, "data of member 1 after its end"));
		assert_int_equal(s.data, 1);
		assert_int_equal(s.ends, 1);
		mux_free(m);
		demux_free(d);
		bytes_free(&b);
		bytes_free(&s.log);
	}
}

/* Every single bit of a frame matters: flip each in turn. */
static void any_flipped_bit(void **state)
{
	struct bytes good = {0};
	struct mux *m = mux_new(0, true);

	(void)state;
	add(m, FRAME_DATA, 1, "a page, a page, a page, a page", 30, true, &good);
	for (size_t bit = 0; bit < bytes_size(&good) * 8; bit++) {
		struct seen s = {0};
		struct demux *d = open_demux(&s);
		struct err err = {0};
		int rc;

		good.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		rc = demux_feed(d, good.data, bytes_size(&good), &err);
		good.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		/* More length than came: it waits. The owner's bit is the other member's, and let in. */
		if (!rc && s.data)
			assert_true(bit == 5 * 8 && s.log.data[1] == 0);
		else
			assert_int_equal(s.data, 0);
		demux_free(d);
		bytes_free(&s.log);
	}
	mux_free(m);
	bytes_free(&good);
}

static size_t packed(const void *data, size_t n, void *to, size_t room)
{
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_inBuffer in = {data, n, 0};
	ZSTD_outBuffer out = {to, room, 0};

	ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, FRAME_WINDOW_LOG);
	assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_flush), 0);
	ZSTD_freeCCtx(z);
	return out.pos;
}

static void bombs(void **state)
{
	static const size_t lie[] = {0, 1, 50000, 99999, 100001, FRAME_MAX};
	uint8_t *raw = calloc(1, 4 * FRAME_MAX), *small = malloc(65536);
	struct bytes b = {0};
	size_t n;

	(void)state;
	for (unsigned random = 0; random < 2; random++) {
		for (size_t i = 0; random && i < 100000; i++)
			raw[i] = (uint8_t)(i >> 8);
		n = packed(raw, 100000, small, 65536);
		for (unsigned i = 0; i < sizeof(lie) / sizeof(lie[0]); i++) {
			struct frame_header h = data_frame(lie[i]);

			h.flags = htole16(FRAME_ZSTD);
			seal(h, small, n, &b);
			assert_refused(&b, -EBADMSG, "length does not agree");
		}
	}
	/* Four megabytes in a few hundred bytes. */
	n = packed(raw, 4 * (size_t)FRAME_MAX, small, 65536);
	assert_true(n < 2000);
	for (unsigned i = 0; i < 2; i++) {
		struct frame_header h = data_frame(i ? FRAME_MAX : 17);

		h.flags = htole16(FRAME_ZSTD);
		seal(h, small, n, &b);
		assert_refused(&b, -EBADMSG, "length does not agree");
	}
	free(raw);
	free(small);
	bytes_free(&b);
}

static void what_is_no_zstd(void **state)
{
	struct frame_header h = data_frame(300);
	struct bytes b = {0};
	uint8_t junk[300], huge[64];
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_inBuffer in = {junk, sizeof(junk), 0};
	ZSTD_outBuffer out = {huge, sizeof(huge), 0};

	(void)state;
	memset(junk, 'j', sizeof(junk));
	h.flags = htole16(FRAME_ZSTD);
	seal(h, junk, sizeof(junk), &b);
	assert_refused(&b, -EBADMSG, "unpack stream");
	seal(h, junk, 0, &b);
	assert_refused(&b, -EBADMSG, "unpack stream");
	/* A window that would make us take half a gigabyte of memory. */
	ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, 27);
	ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
	assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_flush), 0);
	seal(h, huge, out.pos, &b);
	assert_refused(&b, -EBADMSG, "memory");
	ZSTD_freeCCtx(z);
	bytes_free(&b);
}

static void an_error_of_the_taker_ends_it(void **state)
{
	struct seen s = {.rc = -ENOSPC};
	struct demux *d = open_demux(&s);
	struct mux *m = mux_new(0, true);
	struct bytes b = {0};
	struct err err = {0};

	(void)state;
	add(m, FRAME_DATA, 0, "one", 3, true, &b);
	add(m, FRAME_DATA, 0, "two", 3, true, &b);
	assert_int_equal(demux_feed(d, b.data, bytes_size(&b), &err), -ENOSPC);
	assert_int_equal(s.data, 1);
	s.rc = 0;
	assert_true(demux_feed(d, "", 0, &err) < 0); /* not the same frame again, nor the next */
	assert_int_equal(s.data, 1);
	mux_free(m);
	demux_free(d);
	bytes_free(&b);
	bytes_free(&s.log);
}

static void a_queue_of_bytes(void **state)
{
	struct bytes b = {0};
	uint8_t next_in = 0, next_out = 0;

	(void)state;
	for (unsigned k = 0; k < 5000; k++) {
		size_t in = k * 37 % 501, out = k * 53 % 499;

		for (size_t i = 0; i < in; i++, next_in++)
			assert_int_equal(bytes_add(&b, &next_in, 1), 0);
		if (out > bytes_size(&b))
			out = bytes_size(&b);
		for (size_t i = 0; i < out; i++)
			assert_int_equal(b.data[b.begin + i], next_out++);
		bytes_take(&b, out);
	}
	assert_true(b.room < 1 << 20);
	bytes_free(&b);
	assert_null(b.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split),
		cmocka_unit_test(large_batches),
		cmocka_unit_test(too_large_is_not_sent),
		cmocka_unit_test(packing_spans_both_members),
		cmocka_unit_test(wrong_headers),
		cmocka_unit_test(wrong_lengths),
		cmocka_unit_test(wrong_owners),
		cmocka_unit_test(only_who_was_let_in),
		cmocka_unit_test(nothing_after_the_end),
		cmocka_unit_test(any_flipped_bit),
		cmocka_unit_test(bombs),
		cmocka_unit_test(what_is_no_zstd),
		cmocka_unit_test(an_error_of_the_taker_ends_it),
		cmocka_unit_test(a_queue_of_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
