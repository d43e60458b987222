/* SPDX-License-Identifier: MIT */
/* The worker's side of a card in a process of its own. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/units.h"
#include "card/handles.h"
#include "card/worker.h"

#define SPIN_NS 50000u /* after a call the next one is likely, and being woken costs as much */

static struct {
	struct card *card;
	struct worker_memory *memory;
	struct handles objects;
} self;

static bool tell(enum worker_message_kind kind, uint32_t number)
{
	struct worker_message m = {kind, number};

	return send(WORKER_SOCKET, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m);
}

static struct card_object *object_of(uint32_t number)
{
	struct handle_entry *e = number ? handles_find_other(&self.objects, number, 0) : NULL;

	return e ? e->thing : NULL;
}

/* What the card made gets a number; without one it goes again. */
static void keep_made(struct worker_answer *answer, const struct card_call *call)
{
	if (!call->made)
		return;
	answer->made = handles_add(&self.objects, (uint8_t)call->made_type, 0, call->made);
	answer->made_type = call->made_type;
	if (answer->made)
		return;
	self.card->driver->release(self.card, call->made_type, call->made);
	answer->status = SDR_NOBUFFER;
}

static void run(struct worker_slot *slot)
{
	struct worker_ask *ask = &slot->ask;
	struct card_call call = {
		.rq = &ask->rq, .args = slot->args, .in = slot->in, .in_len = ask->in_len, .vm = ask->vm,
		.key_name = ask->has_name ? ask->key_name : NULL, .key_rights = ask->key_rights,
		.right_got = ask->right_got, .key = object_of(ask->key), .object = object_of(ask->object),
		.out = slot->out, .out_cap = ask->out_cap, .out_args = slot->out_args,
	};
	struct worker_answer answer = {0};

	memset(slot->out_args, 0, sizeof(slot->out_args));
	answer.status = self.card->driver->run(self.card, &call);
	keep_made(&answer, &call);
	answer.out_len = call.out_len;
	answer.out_args_len = call.out_args_len;
	slot->answer = answer;
}

static void drop(uint32_t number)
{
	struct handle_entry *e = handles_find_other(&self.objects, number, 0);

	if (!e)
		return;
	self.card->driver->release(self.card, (enum card_object_type)e->type, e->thing);
	handles_remove(&self.objects, number);
}

/* Spin a little, then sleep. false: whoever started us is gone. */
static bool next(struct worker_message *m)
{
	uint64_t until = units_now_ns() + SPIN_NS;
	ssize_t n;

	do {
		n = recv(WORKER_SOCKET, m, sizeof(*m), MSG_DONTWAIT);
	} while (n < 0 && errno == EAGAIN && units_now_ns() < until);
	while (n < 0 && (errno == EAGAIN || errno == EINTR))
		n = recv(WORKER_SOCKET, m, sizeof(*m), 0);
	return n == sizeof(*m);
}

static int serve(void)
{
	struct worker_message m;

	while (next(&m)) {
		if (m.kind == WORKER_DROP) {
			drop(m.number);
		} else if (m.kind == WORKER_CALL && m.number < WORKER_SLOTS) {
			run(&self.memory->slots[m.number]);
			if (!tell(WORKER_DONE, m.number))
				break;
		}
	}
	return EXIT_DONE;
}

int card_worker_main(int argc, char **argv)
{
	struct card_conf conf = {.name = argc > 0 ? argv[0] : "", .spec = argc > 1 ? argv[1] : "",
				 .store = argc > 2 ? argv[2] : NULL, .store_key = argc > 3 ? argv[3] : NULL};
	struct err err = {0};

	/* Keys are in this memory, too; and a library that hangs does not outlive who started it. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	closefrom(WORKER_MEMORY + 1);
	self.memory = mmap(NULL, sizeof(*self.memory), PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_MEMORY, 0);
	if (self.memory == MAP_FAILED) {
		fputs("cardshare: card-worker: only serve starts it (workers = N, or --workers N)\n", stderr);
		return EXIT_USAGE;
	}
	close(WORKER_MEMORY);
	if (card_open(&conf, &self.card, &err)) {
		snprintf(self.memory->error, sizeof(self.memory->error), "%s", err.text);
		tell(WORKER_REFUSED, 0);
		return EXIT_REFUSED;
	}
	self.card->driver->info(self.card, &self.memory->info);
	if (!tell(WORKER_READY, 0))
		return EXIT_REFUSED;
	return serve();
}
