/* SPDX-License-Identifier: MIT */
#include <unistd.h>

#include "base/units.h"
#include "cardd/inside.h"

static void add(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static struct json_object *card_stat(const struct cardd_card *c)
{
	struct json_object *o = json_object_new_object();

	add_text(o, "name", c->name);
	add_text(o, "driver", c->conf->spec);
	add_text(o, "engine", c->info.engine);
	add_text(o, "state", c->failed ? "failed" : "ok");
	add(o, "calls", c->calls);
	add(o, "bytes", c->bytes);
	add(o, "errors", c->errors);
	add(o, "busy_ns", c->busy_ns);
	add(o, "pending", c->pending);
	add(o, "sessions", c->sessions);
	return o;
}

static struct json_object *link_stat(const struct cardd_link *l)
{
	struct json_object *o = json_object_new_object();

	add_text(o, "way", l->ops->name);
	add_text(o, "app", l->app);
	add(o, "sessions", l->sessions);
	add(o, "objects", l->objects);
	add(o, "inflight", l->inflight);
	return o;
}

static struct json_object *vm_stat(struct cardd_vm *vm)
{
	struct json_object *o = json_object_new_object(), *links = json_object_new_array(),
			   *ops = json_object_new_object();

	add_text(o, "name", vm->conf->name);
	add(o, "weight", vm->conf->weight);
	add(o, "requests", vm->requests);
	add(o, "errors", vm->errors);
	add(o, "denied", vm->denied);
	add(o, "limited", vm->limited);
	add(o, "in_bytes", vm->in_bytes);
	add(o, "out_bytes", vm->out_bytes);
	add(o, "card_ns", vm->fair.used_ns);
	add(o, "latency_p50_ns", histogram_percentile(vm->latency, 50));
	add(o, "latency_p99_ns", histogram_percentile(vm->latency, 99));
	add(o, "latency_max_ns", histogram_max(vm->latency));
	add(o, "doorbells", vm->doorbells);
	add(o, "kicks", vm->kicks);
	add(o, "sessions", vm->sessions);
	add(o, "objects", vm->objects);
	add(o, "links_ever", vm->links_ever);
	for (const struct cardd_link *l = vm->links; l; l = l->next)
		if (l->greeted)
			json_object_array_add(links, link_stat(l));
	json_object_object_add(o, "links", links);
	json_object_object_add(o, "regions", ivshmem_stat(vm));
	for (unsigned i = 0; i < CARD_OP_COUNT; i++)
		if (vm->by_op[i])
			add(ops, card_op_info(i)->name, vm->by_op[i]);
	json_object_object_add(o, "ops", ops);
	return o;
}

struct json_object *cardd_stat(struct cardd *d)
{
	struct json_object *o = json_object_new_object(), *cards = json_object_new_array(),
			   *vms = json_object_new_array();

	add_text(o, "schema", "util-vm/cardshare/stat/1");
	add(o, "pid", (uint64_t)getpid());
	add(o, "uptime_us", (units_now_ns() - d->started_ns) / 1000);
	add(o, "requests", d->requests);
	add(o, "turns", d->turns);
	add(o, "sleeps", d->sleeps);
	add(o, "spin_ns", d->spin_ns);
	for (uint32_t i = 0; i < d->card_count; i++)
		json_object_array_add(cards, card_stat(&d->cards[i]));
	json_object_object_add(o, "cards", cards);
	for (struct cardd_vm *vm = d->vms; vm; vm = vm->next)
		json_object_array_add(vms, vm_stat(vm));
	json_object_object_add(o, "vms", vms);
	return o;
}
