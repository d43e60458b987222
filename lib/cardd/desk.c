/* SPDX-License-Identifier: MIT */
/*
 * The desk: what becomes of a request. It is looked at in the daemon's own copy; rights, handles
 * and limits are settled here, and a card sees only what passed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/units.h"
#include "cardd/inside.h"

static void object_put(struct cardd_object *o)
{
	if (!o || --o->refs)
		return;
	if (o->card->card)
		o->card->card->driver->release(o->card->card, o->type, o->o);
	free(o);
}

static void object_drop(struct cardd_link *l, uint32_t handle)
{
	struct handle_entry *e = handles_find_other(&l->handles, handle, HANDLE_SESSION);

	if (!e)
		return;
	object_put(e->thing);
	handles_remove(&l->handles, handle);
	l->objects--;
	l->vm->objects--;
}

static void session_drop(struct cardd_link *l, uint32_t session)
{
	struct handle_entry *e = handles_find(&l->handles, session, HANDLE_SESSION);
	struct cardd_session *s = e->thing;
	uint32_t place = 0, handle;

	while ((e = handles_next(&l->handles, &place, &handle)))
		if (e->owner == session)
			object_drop(l, handle);
	s->card->sessions--;
	free(s);
	handles_remove(&l->handles, session);
	l->sessions--;
	l->vm->sessions--;
}

void desk_reset(struct cardd_link *l)
{
	struct handle_entry *e;
	uint32_t place = 0, handle;

	while ((e = handles_next(&l->handles, &place, &handle)))
		if (e->type == HANDLE_SESSION)
			session_drop(l, handle);
	handles_free(&l->handles);
	l->epoch = ++l->vm->d->last_epoch;
	l->greeted = false;
}

/* The card with the fewest sessions that is there. */
static struct cardd_card *choose_card(struct cardd_vm *vm)
{
	struct cardd_card *best = NULL;

	for (uint32_t i = 0; i < vm->card_count; i++) {
		struct cardd_card *c = vm->cards[i];

		if (!c->failed && (!best || c->sessions < best->sessions))
			best = c;
	}
	return best;
}

static uint32_t hello(struct cardd_job *job)
{
	struct cardd_link *l = job->link;
	struct cardd_vm *vm = l->vm;
	struct cardd_card *c = choose_card(vm);
	const struct card_hello *rq = (const struct card_hello *)job->args;
	struct card_hello_answer *an = (struct card_hello_answer *)job->out_args;

	if (rq->version_min > CARD_VERSION || rq->version_max < CARD_VERSION)
		return SDR_NOTSUPPORT;
	desk_reset(l);
	job->epoch = l->epoch;
	l->greeted = true;
	for (unsigned i = 0; i < sizeof(l->app) - 1; i++) /* it goes to terminals: plain ASCII only */
		l->app[i] = rq->app[i] > ' ' && rq->app[i] < 0x7f ? rq->app[i] : '\0';
	*an = (struct card_hello_answer){
		.version = CARD_VERSION, .epoch = l->epoch, .daemon = vm->d->random,
		.ops = c ? c->info.ops : 0, .data_max = CARD_DATA_MAX, .depth = l->depth,
		.sessions_max = vm->conf->sessions_max, .objects_max = vm->conf->objects_max,
		.cards = vm->card_count,
	};
	memcpy(an->vm, vm->conf->name, sizeof(an->vm));
	memcpy(an->card, c ? c->conf->name : "", c ? sizeof(an->card) : 1);
	return SDR_OK;
}

static uint32_t session_open(struct cardd_job *job)
{
	struct cardd_link *l = job->link;
	struct cardd_card *c = choose_card(l->vm);
	struct cardd_session *s;

	if (!c)
		return SDR_HARDFAIL;
	if (l->vm->sessions >= l->vm->conf->sessions_max)
		return SDR_OPENSESSION;
	s = calloc(1, sizeof(*s));
	if (!s)
		return SDR_OPENSESSION;
	s->card = c;
	job->an.object = handles_add(&l->handles, HANDLE_SESSION, 0, s);
	if (!job->an.object) {
		free(s);
		return SDR_OPENSESSION;
	}
	c->sessions++;
	l->sessions++;
	l->vm->sessions++;
	return SDR_OK;
}

static uint32_t list_keys(struct cardd_job *job)
{
	struct cardd_vm_conf *conf = job->link->vm->conf;
	struct card_key_entry *to = (struct card_key_entry *)job->out;
	uint32_t n = 0, room = job->rq.out_max / sizeof(*to);

	for (unsigned class = 0; class < CARD_CLASSES; class++)
		for (uint32_t i = 1; conf->keys[class] && i <= CARDD_INDEX_MAX; i++) {
			const struct cardd_key *k = &conf->keys[class][i];

			if (!k->rights)
				continue;
			if (n == room)
				return SDR_NOBUFFER;
			to[n] = (struct card_key_entry){.class = (uint8_t)class, .index = i, .rights = k->rights};
			memcpy(to[n++].name, k->name, sizeof(k->name));
		}
	job->call.out_len = n * (uint32_t)sizeof(*to);
	job->direct = false;
	job->call.out = job->out;
	return SDR_OK;
}

static uint32_t echo(struct cardd_job *job)
{
	uint32_t n = job->rq.data_len < job->rq.out_max ? job->rq.data_len : job->rq.out_max;

	memcpy(job->shared_out, job->shared_in, n);
	job->call.out_len = n;
	job->direct = true;
	return SDR_OK;
}

/* What a VM may at all, keys aside. */
static bool allowed(const struct cardd_vm *vm, const struct cardd_job *job)
{
	const struct card_request *rq = &job->rq;
	const struct card_wrap *wrap = (const struct card_wrap *)job->args;
	uint32_t need = 0;

	switch (rq->op) {
	case CARD_OP_RANDOM:
		need = CARDD_ALLOW_RANDOM;
		break;
	case CARD_OP_PAIR:
		need = CARDD_ALLOW_PAIR;
		break;
	case CARD_OP_HASH:
		need = CARDD_ALLOW_HASH;
		break;
	case CARD_OP_FILE_CREATE:
	case CARD_OP_FILE_READ:
	case CARD_OP_FILE_WRITE:
	case CARD_OP_FILE_DELETE:
		need = CARDD_ALLOW_FILES;
		break;
	case CARD_OP_KEY_TAKE:
		if (wrap->by == CARD_WRAP_PLAIN)
			need = CARDD_ALLOW_PLAIN;
		break;
	default:
		if (rq->key_kind == CARD_KEY_GIVEN)
			need = CARDD_ALLOW_EXTERNAL;
	}
	return (vm->conf->allow & need) == need;
}

static uint32_t settle_key(struct cardd_job *job, struct cardd_session *s)
{
	struct cardd_vm *vm = job->link->vm;
	const struct card_request *rq = &job->rq;
	enum card_key_class class = card_key_class(rq, job->args);
	unsigned need = card_rights_needed(rq);
	const struct cardd_key *k;
	struct handle_entry *e;

	if (rq->key_kind == CARD_KEY_OBJECT) {
		e = handles_find(&job->link->handles, rq->key, HANDLE_SESSION + CARD_OBJ_KEY);
		if (!e || ((struct cardd_object *)e->thing)->card != s->card)
			return SDR_KEYNOTEXIST;
		job->key = e->thing;
		job->call.key = job->key->o;
	}
	if (rq->key_kind != CARD_KEY_INDEX)
		return SDR_OK;
	k = rq->key <= CARDD_INDEX_MAX && vm->conf->keys[class] ? &vm->conf->keys[class][rq->key] : NULL;
	if (!k || !k->rights || (k->rights & need) != need) {
		vm->denied++;
		audit_denied(vm, rq, class);
		return k && k->rights ? SDR_PARDENY : SDR_KEYNOTEXIST;
	}
	job->call.key_name = k->name;
	job->call.key_rights = k->rights;
	job->call.right_got = s->rights[class][rq->key / 64] >> (rq->key % 64) & 1;
	return SDR_OK;
}

static bool makes_object(const struct card_request *rq)
{
	const struct card_op_info *info = card_op_info(rq->op);

	if (info->phased)
		return (rq->phase & (CARD_PHASE_BEGIN | CARD_PHASE_END)) == CARD_PHASE_BEGIN;
	return rq->op == CARD_OP_KEY_MAKE || rq->op == CARD_OP_KEY_TAKE || rq->op == CARD_OP_AGREE;
}

static uint32_t settle_object(struct cardd_job *job, struct cardd_session *s)
{
	struct cardd_link *l = job->link;
	const struct card_request *rq = &job->rq;
	bool phased = card_op_info(rq->op)->phased;
	struct handle_entry *e;

	if (makes_object(rq) && l->vm->objects >= l->vm->conf->objects_max)
		return SDR_NOBUFFER;
	if (!rq->object)
		return rq->op == CARD_OP_DROP ? SDR_KEYNOTEXIST : SDR_OK;
	e = handles_find_other(&l->handles, rq->object, HANDLE_SESSION);
	if (!e || e->owner != rq->session || ((struct cardd_object *)e->thing)->card != s->card)
		return phased ? SDR_STEPERR : SDR_KEYNOTEXIST;
	job->object = e->thing;
	if (phased && (job->object->type != CARD_OBJ_STREAM || job->object->op != rq->op))
		return SDR_STEPERR;
	if (rq->op == CARD_OP_AGREE && job->object->type != CARD_OBJ_AGREEMENT)
		return SDR_STEPERR;
	job->call.object = job->object->o;
	return SDR_OK;
}

/* Where the card reads and writes: in the guest's memory only what is read or written once. */
static void settle_memory(struct cardd_job *job, const struct cardd_card *c)
{
	bool at_once = !c->card->driver->reap;
	bool direct = at_once && (job->link->ops->private_memory || card_op_info(job->rq.op)->streams);

	job->direct = direct;
	job->copied = !direct;
	if (!direct)
		memcpy(job->in, job->shared_in, job->rq.data_len);
	job->call.in = direct ? job->shared_in : job->in;
	job->call.in_len = job->rq.data_len;
	job->call.out = direct ? job->shared_out : job->out;
	job->call.out_cap = job->rq.out_max;
}

static uint32_t ask_card(struct cardd_job *job)
{
	struct cardd_link *l = job->link;
	const struct card_request *rq = &job->rq;
	struct handle_entry *e = handles_find(&l->handles, rq->session, HANDLE_SESSION);
	struct cardd_session *s;
	uint32_t status;

	if (!e)
		return SDR_OPENSESSION;
	s = e->thing;
	if (s->card->failed)
		return CARD_NOT_BEGUN;
	if (rq->op == CARD_OP_DROP) {
		status = settle_object(job, s);
		if (!status)
			object_drop(l, rq->object);
		job->object = NULL;
		return status;
	}
	if (!(s->card->info.ops >> rq->op & 1))
		return SDR_NOTSUPPORT;
	if (!allowed(l->vm, job)) {
		l->vm->denied++;
		return SDR_PARDENY;
	}
	status = settle_key(job, s);
	if (!status)
		status = settle_object(job, s);
	if (status)
		return status;
	job->card = s->card;
	settle_memory(job, s->card);
	return s->card->card->driver->run(s->card->card, &job->call);
}

static uint32_t begin(struct cardd_job *job)
{
	struct cardd_link *l = job->link;
	const struct card_request *rq = &job->rq;
	struct cardd_card *c;
	struct handle_entry *e;
	uint32_t status = card_request_check(rq);

	if (status) { /* nobody is to look at lengths that are none */
		job->rq.args_len = job->rq.data_len = job->rq.out_max = 0;
		return status;
	}
	l->vm->by_op[rq->op]++;
	if (rq->op == CARD_OP_HELLO)
		return hello(job);
	if (!l->greeted || rq->epoch != l->epoch)
		return SDR_COMMFAIL;
	if (rq->patience_us && job->begun_ns - job->seen_ns > rq->patience_us * UINT64_C(1000))
		return SDR_COMMFAIL;
	switch (rq->op) {
	case CARD_OP_ECHO:
		return echo(job);
	case CARD_OP_INFO:
		c = choose_card(l->vm);
		if (!c)
			return SDR_HARDFAIL;
		if (rq->out_max < sizeof(c->info.sdf))
			return SDR_NOBUFFER;
		memcpy(job->out, &c->info.sdf, sizeof(c->info.sdf));
		job->call.out = job->out;
		job->call.out_len = sizeof(c->info.sdf);
		return SDR_OK;
	case CARD_OP_KEYS:
		return list_keys(job);
	case CARD_OP_SESSION_OPEN:
		return session_open(job);
	case CARD_OP_SESSION_CLOSE:
		e = handles_find(&l->handles, rq->session, HANDLE_SESSION);
		if (!e)
			return SDR_OPENSESSION;
		session_drop(l, rq->session);
		return SDR_OK;
	default:
		return ask_card(job);
	}
}

/* What the card made becomes a handle of the session. */
static uint32_t keep_made(struct cardd_job *job)
{
	struct cardd_link *l = job->link;
	struct cardd_object *o = calloc(1, sizeof(*o));

	if (o) {
		*o = (struct cardd_object){job->card, job->call.made, job->call.made_type, 1,
					   job->rq.op};
		if (handles_find(&l->handles, job->rq.session, HANDLE_SESSION))
			job->an.object = handles_add(&l->handles, (uint8_t)(HANDLE_SESSION + o->type),
						     job->rq.session, o);
	}
	if (!job->an.object) {
		free(o);
		job->card->card->driver->release(job->card->card, job->call.made_type, job->call.made);
		return SDR_NOBUFFER;
	}
	l->objects++; /* NOLINT(clang-analyzer-unix.Malloc): the handle has it */
	l->vm->objects++;
	return SDR_OK;
}

static void after_card(struct cardd_job *job, uint32_t *status)
{
	const struct card_request *rq = &job->rq;
	struct cardd_link *l = job->link;
	bool gone = l->closed || job->epoch != l->epoch;

	if (job->call.made && gone)
		job->card->card->driver->release(job->card->card, job->call.made_type, job->call.made);
	else if (job->call.made)
		*status = keep_made(job);
	if (gone)
		return;
	/* A stream that ended or failed is over. */
	if (job->object && job->object->type == CARD_OBJ_STREAM &&
	    (*status || (rq->phase & CARD_PHASE_END)))
		object_drop(l, rq->object);
	if (job->object && rq->op == CARD_OP_AGREE)
		object_drop(l, rq->object);
	if ((rq->op == CARD_OP_RIGHT_GET || rq->op == CARD_OP_RIGHT_DROP) && *status == SDR_OK) {
		struct handle_entry *e = handles_find(&l->handles, rq->session, HANDLE_SESSION);
		struct cardd_session *s = e ? e->thing : NULL;
		uint64_t bit = UINT64_C(1) << (rq->key % 64);

		if (s && rq->op == CARD_OP_RIGHT_GET)
			s->rights[card_key_class(rq, job->args)][rq->key / 64] |= bit;
		else if (s)
			s->rights[card_key_class(rq, job->args)][rq->key / 64] &= ~bit;
	}
}

static void count(struct cardd_job *job, uint32_t status)
{
	struct cardd_vm *vm = job->link->vm;
	const struct card_request *rq = &job->rq;

	vm->requests++;
	vm->d->requests++;
	vm->in_bytes += rq->data_len;
	vm->out_bytes += job->an.data_len;
	if (status)
		vm->errors++;
	fair_bucket_take(&vm->ops, 1);
	if (job->card) {
		job->card->calls++;
		job->card->bytes += rq->data_len;
		job->card->errors += status != SDR_OK;
	}
	if (rq->key_kind == CARD_KEY_INDEX && job->call.key_name) {
		struct cardd_use *u = vm->uses[card_key_class(rq, job->args)];

		if (u && status)
			u[rq->key].failed++;
		else if (u)
			u[rq->key].done++;
	}
}

/* Nothing of a request stays behind that could be a secret. */
static void wipe(struct cardd_job *job)
{
	const struct card_op_info *info = card_op_info(job->rq.op);

	if (job->copied)
		OPENSSL_cleanse(job->in, job->rq.data_len);
	if (!job->direct && job->call.out == job->out)
		OPENSSL_cleanse(job->out, job->call.out_len);
	if (info && !info->streams) {
		OPENSSL_cleanse(job->args, job->rq.args_len);
		OPENSSL_cleanse(job->out_args, info->answer_args);
	}
}

static void finish(struct cardd_job *job, uint32_t status, uint64_t now)
{
	struct cardd_link *l = job->link;
	const struct card_op_info *info = card_op_info(job->rq.op);
	bool away = status == CARD_NOT_BEGUN || status == CARD_LOST;

	if (job->card)
		after_card(job, &status);
	job->an.seq = job->rq.seq;
	job->an.magic = CARD_ANSWER_MAGIC;
	job->an.op = job->rq.op;
	job->an.status = status;
	job->an.epoch = l->epoch;
	if (away) { /* no link has the epoch 0: all that the guest had in that card is gone */
		job->an.epoch = 0;
		job->an.status = status = status == CARD_LOST ? SDR_HARDFAIL : SDR_COMMFAIL;
	}
	job->an.args_len = status == SDR_OK && info ? info->answer_args : 0;
	job->an.data_len = status == SDR_OK ? job->call.out_len : 0;
	job->an.card_ns = (uint32_t)(now - job->begun_ns);
	job->an.queued_ns = (uint32_t)(job->begun_ns - job->seen_ns);
	count(job, status);
	if (!l->closed && job->epoch == l->epoch)
		l->ops->answer(l, job);
	histogram_record(l->vm->latency, now - job->seen_ns);
	object_put(job->key);
	object_put(job->object);
	wipe(job);
}

static void prepare(struct cardd *d, struct cardd_link *l, struct cardd_job *job)
{
	const struct card_op_info *info = card_op_info(job->rq.op);

	job->d = d;
	job->link = l;
	job->epoch = l->epoch;
	job->an = (struct card_answer){0};
	job->call = (struct card_call){.rq = &job->rq, .args = job->args, .vm = l->vm->conf->name,
				       .out_args = job->out_args, .user = job};
	job->card = NULL;
	job->key = job->object = NULL;
	job->direct = job->copied = false;
	job->charged_ns = 0;
	if (info && info->answer_args)
		memset(job->out_args, 0, info->answer_args);
}

void desk_serve(struct cardd *d, struct cardd_link *l)
{
	struct cardd_job *job = d->held ? d->held : job_get(d);
	struct cardd_vm *vm = l->vm;
	uint32_t status;
	uint64_t now;

	d->held = job;
	if (!job || !l->ops->take(l, job))
		return;
	prepare(d, l, job);
	job->seen_ns = l->seen_ns;
	job->begun_ns = d->now_ns;
	status = begin(job);
	fair_bucket_take(&vm->bytes, job->rq.data_len);
	if (job->key)
		job->key->refs++;
	if (job->object)
		job->object->refs++;
	now = units_now_ns();
	if (status == CARD_PENDING) {
		d->held = NULL;
		d->async_pending++;
		job->card->pending++;
		l->inflight++;
		vm->inflight++;
		job->charged_ns = job->card->usual_ns;
		fair_charge(&d->fair, &vm->fair, (int64_t)(job->charged_ns + now - d->now_ns));
	} else {
		if (job->card)
			job->card->busy_ns += now - d->now_ns;
		finish(job, status, now);
		fair_charge(&d->fair, &vm->fair, (int64_t)(now - d->now_ns));
	}
	d->now_ns = now;
}

/* A call came back. What it took is the time since it, or the one before it, was at the card. */
static void reaped(struct cardd_card *c, struct cardd_job *job, uint32_t status)
{
	struct cardd *d = c->d;
	struct cardd_link *l = job->link;
	uint64_t now = units_now_ns(), since = c->last_done_ns > job->begun_ns ? c->last_done_ns
									       : job->begun_ns;
	uint64_t took = now - since;

	c->last_done_ns = now;
	c->usual_ns = c->usual_ns ? (c->usual_ns * 7 + took) / 8 : took;
	c->busy_ns += took;
	c->pending--;
	d->async_pending--;
	l->inflight--;
	l->vm->inflight--;
	fair_charge(&d->fair, &l->vm->fair, (int64_t)(took - job->charged_ns));
	finish(job, status, now);
	job_put(d, job);
	if (!l->closed)
		link_wake(l);
}

static void unblock(struct cardd *d)
{
	for (struct cardd_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->blocked) {
			vm->blocked = false;
			if (vm->pending_first)
				(void)fair_return(&d->fair, &vm->fair);
		}
}

void desk_card_ready(struct watch *w, uint32_t events)
{
	struct cardd_card *c = w->owner;
	struct card_call *call;
	uint32_t status;

	(void)events;
	while (c->card && (call = c->card->driver->reap(c->card, &status)))
		reaped(c, call->user, status);
	card_look(c);
	unblock(c->d);
}
