/* SPDX-License-Identifier: MIT */
/* What is a request, what is a region, and what a handle names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "card/handles.h"
#include "card/hybrid.h"
#include "card/ivshmem_client.h"
#include "card/protocol.h"
#include "card/ring.h"

static struct card_request good(unsigned op)
{
	const struct card_op_info *info = card_op_info(op);
	struct card_request rq = {.magic = CARD_REQUEST_MAGIC, .op = (uint16_t)op, .seq = 1,
				  .session = info->session, .args_len = info->args_len};

	for (uint8_t kind = CARD_KEY_GIVEN; kind; kind--)
		if (info->keys >> kind & 1) {
			rq.key_kind = kind;
			rq.key = kind != CARD_KEY_GIVEN;
			if (kind == CARD_KEY_GIVEN && info->given_args_len)
				rq.args_len = info->given_args_len;
			break;
		}
	if (info->phased)
		rq.phase = CARD_PHASE_BEGIN | CARD_PHASE_END;
	return rq;
}

static void every_operation_has_a_good_request(void **state)
{
	(void)state;
	for (unsigned op = CARD_OP_HELLO; op < CARD_OP_COUNT; op++) {
		struct card_request rq = good(op);

		assert_int_equal(card_request_check(&rq), SDR_OK);
		assert_true(card_op_info(op)->args_len <= CARD_ARGS_MAX);
		assert_true(card_op_info(op)->answer_args <= CARD_ARGS_MAX);
	}
	assert_null(card_op_info(0));
	assert_null(card_op_info(CARD_OP_COUNT));
	assert_null(card_op_info(UINT16_MAX));
}

/* One field wrong, in each operation: never accepted. */
static void one_wrong_field_is_refused(void **state)
{
	(void)state;
	for (unsigned op = CARD_OP_HELLO; op < CARD_OP_COUNT; op++)
		for (unsigned k = 0; k < 10; k++) {
			struct card_request rq = good(op);

			switch (k) {
			case 0: rq.magic ^= 1; break;
			case 1: rq.op = CARD_OP_COUNT; break;
			case 2: rq.args_len++; break;
			case 3: rq.data_len = CARD_DATA_MAX + 1; break;
			case 4: rq.out_max = CARD_DATA_MAX + 1; break;
			case 5: rq.reserved[6] = 1; break;
			case 6: rq.flags = 0x80; break;
			case 7: rq.phase ^= 0x10; break;
			case 8: rq.key_kind = 4; break;
			case 9: rq.session = !rq.session; break;
			}
			assert_int_not_equal(card_request_check(&rq), SDR_OK);
		}
}

static void streams_begin_and_go_on(void **state)
{
	struct card_request rq = good(CARD_OP_CIPHER);

	(void)state;
	rq.phase = CARD_PHASE_BEGIN;
	assert_int_equal(card_request_check(&rq), SDR_OK);
	rq.flags = CARD_FLAG_REPLAY; /* what began cannot be begun again elsewhere */
	assert_int_equal(card_request_check(&rq), SDR_INARGERR);
	rq.flags = 0;
	rq.object = 5; /* nothing to go on with yet */
	assert_int_equal(card_request_check(&rq), SDR_INARGERR);
	rq = good(CARD_OP_CIPHER);
	rq.phase = CARD_PHASE_END;
	rq.object = 5;
	rq.key_kind = CARD_KEY_NONE;
	rq.key = rq.args_len = 0;
	assert_int_equal(card_request_check(&rq), SDR_OK);
	rq.args_len = sizeof(struct card_cipher);
	assert_int_equal(card_request_check(&rq), SDR_INARGERR);
	rq.phase = CARD_PHASE_AAD;
	rq.args_len = 0;
	assert_int_equal(card_request_check(&rq), SDR_INARGERR);
	rq.op = CARD_OP_AEAD;
	assert_int_equal(card_request_check(&rq), SDR_OK);
}

static void messages_have_sizes(void **state)
{
	struct card_request rq = {.magic = CARD_REQUEST_MAGIC, .args_len = 448, .data_len = 16384};
	struct card_answer an = {.magic = CARD_ANSWER_MAGIC, .args_len = 1, .data_len = 2};

	(void)state;
	assert_int_equal(card_request_size(&rq, sizeof(rq) - 1), 0);
	assert_int_equal(card_request_size(&rq, sizeof(rq)), CARD_MESSAGE_MAX);
	assert_int_equal(card_answer_size(&an, 5000), 67);
	assert_int_equal(card_answer_size(&rq, sizeof(rq)), -EPROTO);
	rq.data_len++;
	assert_int_equal(card_request_size(&rq, sizeof(rq)), -EPROTO);
	rq.data_len = UINT32_MAX;
	assert_int_equal(card_request_size(&rq, sizeof(rq)), -EPROTO);
}

static void layouts_fit(void **state)
{
	struct card_layout l, read;
	struct card_region *r = calloc(1, CARD_REGION_HEAD);

	(void)state;
	assert_int_equal(card_layout_make(4 << 20, 4, 0, &l), 0);
	assert_int_equal(l.slots, 30);
	assert_true(CARD_REGION_HEAD + (uint64_t)l.queues * l.queue_size <= l.size);
	assert_int_equal(card_layout_make((4 << 20) + 1, 4, 0, &l), -EINVAL);
	assert_int_equal(card_layout_make(65536, 4, 0, &l), -EINVAL);
	assert_int_equal(card_layout_make(4 << 20, 4, 31, &l), -EINVAL);
	assert_int_equal(card_layout_make(4 << 20, 0, 0, &l), -EINVAL);
	assert_int_equal(card_layout_make(65536, 1, 0, &l), 0);
	assert_int_equal(l.slots, 1);

	assert_int_equal(card_layout_make(4 << 20, 4, 0, &l), 0);
	*r = (struct card_region){.magic = CARD_REGION_MAGIC, .version = CARD_VERSION, .size = l.size,
				  .queues = l.queues, .slots = l.slots, .slot_size = sizeof(struct card_slot),
				  .queue_size = l.queue_size};
	assert_int_equal(card_layout_read(r, l.size, &read), -EAGAIN);
	r->state = CARD_REGION_OPEN;
	assert_int_equal(card_layout_read(r, l.size, &read), 0);
	assert_true(read.size == l.size && read.queues == l.queues && read.slots == l.slots &&
		    read.queue_size == l.queue_size);
	assert_int_equal(card_layout_read(r, l.size / 2, &read), -EPROTO);
	r->queues = 5;
	assert_int_equal(card_layout_read(r, l.size, &read), -EPROTO);
	r->queues = 4;
	r->slots++;
	assert_int_equal(card_layout_read(r, l.size, &read), -EPROTO);
	r->slots = UINT32_MAX;
	assert_int_equal(card_layout_read(r, l.size, &read), -EPROTO);
	free(r);
}

static void stale_handles_name_nothing(void **state)
{
	struct handles h = {0};
	uint32_t all[1000], place = 0, handle, n = 0;
	int things[2];

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		all[i] = handles_add(&h, 1, 0, &things[0]);
		assert_int_not_equal(all[i], 0);
	}
	for (unsigned i = 0; i < 1000; i += 2)
		handles_remove(&h, all[i]);
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t again = handles_add(&h, 2, 7, &things[1]);

		assert_null(handles_find(&h, all[(i * 2) % 1000], 1));
		assert_null(handles_find_other(&h, all[(i * 2) % 1000], 0));
		assert_null(handles_find(&h, again, 1));
		assert_ptr_equal(handles_find(&h, again, 2)->thing, &things[1]);
		assert_null(handles_find_other(&h, again, 2));
		handles_remove(&h, again);
		handles_remove(&h, again); /* once is enough */
	}
	while (handles_next(&h, &place, &handle))
		n++;
	assert_int_equal(n, 500);
	assert_null(handles_find(&h, UINT32_MAX, 1));
	handles_free(&h);
}

/* All generations of all places used up: no more handles, rather than an old one again. */
static void places_run_out(void **state)
{
	struct handles h = {0};
	uint32_t keep[16], handle = 0, last = 0, n = 0;

	(void)state;
	/* All but one of the first sixteen places, so that the one is used again and again. */
	for (unsigned i = 0; i < 16; i++)
		keep[i] = handles_add(&h, 1, 0, NULL);
	handles_remove(&h, keep[3]);
	while (n < 200000 && (handle = handles_add(&h, 1, 0, NULL)) && (handle & 0xffff) == 3) {
		assert_true(handle > last);
		last = handle;
		handles_remove(&h, handle);
		n++;
	}
	assert_int_equal(n, CARD_HANDLE_GENERATIONS - 1);
	assert_int_equal(handle & 0xffff, 16); /* that place is used up; the next is fresh */
	handles_free(&h);
}

static void hybrid_words(void **state)
{
	static const struct {
		const char *word;
		int rc;
		bool done;
	} v[] = {{"OK 1073741824\n", 0, true}, {"OK \n", -EPROTO, false}, {"OK 12345678901\n", -EPROTO, false},
		 {"OK 1", 0, false}, {"NO 1\n", -EPROTO, false}, {"OK 1x\n", -EPROTO, false},
		 {"OK 1\nx", -EPROTO, true}};

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(*v); i++) {
		struct card_hybrid h = {0};
		int rc = 0;

		for (const char *p = v[i].word; *p && !rc; p++)
			rc = card_hybrid_feed(&h, *p);
		assert_int_equal(rc, v[i].rc);
		assert_int_equal(h.done, v[i].done);
	}
}

static void ivshmem_handshake_order(void **state)
{
	struct ivshmem_client c;

	(void)state;
	ivshmem_client_init(&c);
	assert_int_equal(ivshmem_client_feed(&c, 0, -1), 0);
	assert_int_equal(ivshmem_client_feed(&c, 65536, -1), -EPROTO);
	ivshmem_client_init(&c);
	assert_int_equal(ivshmem_client_feed(&c, 1, -1), -EPROTO);
	ivshmem_client_init(&c);
	assert_int_equal(ivshmem_client_feed(&c, 0, -1), 0);
	assert_int_equal(ivshmem_client_feed(&c, 7, -1), 0);
	assert_int_equal(ivshmem_client_feed(&c, -1, -1), -EPROTO); /* memory without memory */
	ivshmem_client_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_operation_has_a_good_request),
		cmocka_unit_test(one_wrong_field_is_refused),
		cmocka_unit_test(streams_begin_and_go_on),
		cmocka_unit_test(messages_have_sizes),
		cmocka_unit_test(layouts_fit),
		cmocka_unit_test(stale_handles_name_nothing),
		cmocka_unit_test(places_run_out),
		cmocka_unit_test(hybrid_words),
		cmocka_unit_test(ivshmem_handshake_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
