/* SPDX-License-Identifier: MIT */
/*
 * The daemon against a hostile guest, whole: a soft card with keys, a VM with rights, and what the fuzzer says
 * comes as bytes of a framed stream (first byte even) or as slots of a ring (odd). The desk's tables are
 * looked at after each input: nothing may be left of a link that is gone.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cardd/inside.h"
#include "cardd/loop.h"
#include "cardd/serve_ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cardd *d;
static struct cardd_vm *vm;
static struct card_layout layout;
static uint8_t *region;
static bool ring_was_freed;

static void set_up(void)
{
	static char dir[] = "/tmp/fuzz_cardd.XXXXXX";
	struct cardd_conf c;
	struct err err;
	char text[512];

	log_init("fuzz", LOG_QUIET);
	if (!mkdtemp(dir))
		abort();
	snprintf(text, sizeof(text), "[daemon]\ncontrol = %s/c\nspin = 0\n[card s]\ndriver = soft\nstore = %s/s\n"
		 "[vm v]\nunix = %s/u\nallow = all\necc.1 = none all\nkek.1 = none all\nobjects = 8\nsessions = 4\n",
		 dir, dir, dir);
	cardd_conf_init(&c);
	if (cardd_conf_parse(&c, "fuzz", text, &err) || cardd_conf_check(&c, "fuzz", &err) || cardd_new(&c, &d, &err))
		abort();
	snprintf(text, sizeof(text), "rm -r %s", dir);
	if (system(text)) /* NOLINT: nothing needs the files any more */
		abort();
	vm = d->vms;
	if (card_layout_make(1 << 18, 1, 4, &layout))
		abort();
	region = aligned_alloc(4096, 1 << 18);
}

/* A turn of the loop is a turn without sleeping. */
static void turns(unsigned n)
{
	while (n--)
		loop_turn(d);
}

static void as_stream(const uint8_t *data, size_t size)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) || stream_accept(vm, pair[1]))
		abort();
	while (size) {
		ssize_t n = send(pair[0], data, size, MSG_NOSIGNAL);
		char answer[65536];

		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		turns(3);
		while (recv(pair[0], answer, sizeof(answer), 0) > 0)
			;
		if (n < 0 && !vm->links)
			break;
	}
	turns(2);
	close(pair[0]);
	turns(2);
}

static void ring_gone(struct ring_link *r)
{
	ring_was_freed = true;
	free(r);
}

/* Each 64 bytes are a request's header, placed where the daemon looks next; args and data are what the rest holds. */
static void as_ring(const uint8_t *data, size_t size)
{
	struct ring_link *r = calloc(1, sizeof(*r));
	struct card_queue *q = card_layout_queue(&layout, region, 0);
	uint64_t seq = 0;

	memset(region, 0, 1 << 18);
	r->gone = ring_gone;
	ring_was_freed = false;
	ring_init(r, vm, &layout, region, 0);
	atomic_store(&q->open, 1);
	ring_rung(r);
	while (size >= 64) {
		struct card_slot *slot = card_layout_submission(q, (uint32_t)(seq++ % layout.slots));
		size_t rest = size < sizeof(*slot) ? size : sizeof(*slot);

		memcpy((uint8_t *)slot + 8, data + 8, rest - 8);
		card_slot_publish(slot, seq);
		if (data[0] == 0xff)
			atomic_store(&q->open, data[1]);
		ring_rung(r);
		turns(1);
		data += 64;
		size -= 64;
	}
	link_close(&r->l);
	turns(1);
	if (!ring_was_freed)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!d)
		set_up();
	if (size < 2)
		return 0;
	/* So that the epoch which the greeting answers is 0, and a corpus can name it. */
	d->last_epoch = UINT32_MAX - 1 - (data[0] & 1);
	if (data[0] & 1)
		as_ring(data + 1, size - 1);
	else
		as_stream(data + 1, size - 1);
	if (vm->links || vm->sessions || vm->objects || vm->inflight || d->fair.count || d->hot_count)
		abort();
	return 0;
}
