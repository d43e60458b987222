/* SPDX-License-Identifier: MIT */
/*
 * Cards that compute nothing: what the way to a card costs. `null` gives bulk data back as it came;
 * `slow:RATE[,TIME]` does, too, but no faster than RATE bytes a second and TIME a call, one call
 * after another, as a card with a stated speed does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/units.h"
#include "card/drivers.h"

#define SLOW_DEPTH 8 /* calls that it takes at a time */

struct card_object {
	int nothing;
};

struct slow {
	struct card card;
	int timer;
	uint64_t rate, fixed_ns;
	uint64_t busy_until_ns;
	struct {
		struct card_call *call;
		uint64_t due_ns;
		uint32_t status;
	} queue[SLOW_DEPTH];
	unsigned first, count;
};

static uint32_t make_object(struct card_call *call, enum card_object_type type)
{
	call->made = calloc(1, sizeof(*call->made));
	call->made_type = type;
	return call->made ? SDR_OK : SDR_NOBUFFER;
}

static uint32_t answer(struct card_call *call)
{
	const struct card_request *rq = call->rq;

	switch (rq->op) {
	case CARD_OP_RANDOM:
		memset(call->out, 0, call->out_cap);
		call->out_len = call->out_cap;
		return SDR_OK;
	case CARD_OP_KEY_MAKE:
	case CARD_OP_KEY_TAKE:
		return make_object(call, CARD_OBJ_KEY);
	case CARD_OP_SIGN:
	case CARD_OP_VERIFY:
		return SDR_OK;
	case CARD_OP_HASH:
	case CARD_OP_CIPHER:
		break;
	default:
		return SDR_NOTSUPPORT;
	}
	if (rq->op == CARD_OP_CIPHER) {
		if (call->out_cap < call->in_len)
			return SDR_NOBUFFER;
		memcpy(call->out, call->in, call->in_len);
		call->out_len = call->in_len;
	}
	if (rq->phase == CARD_PHASE_BEGIN)
		return make_object(call, CARD_OBJ_STREAM);
	return SDR_OK;
}

static void info_of(struct card_info *info, const char *engine)
{
	static const unsigned ops[] = {CARD_OP_RANDOM, CARD_OP_KEY_MAKE, CARD_OP_KEY_TAKE,
				       CARD_OP_SIGN, CARD_OP_VERIFY, CARD_OP_HASH, CARD_OP_CIPHER, CARD_OP_DROP};

	*info = (struct card_info){.sdf = {.version = 1, .standard = 2, .buffer_size = CARD_DATA_MAX}};
	snprintf((char *)info->sdf.issuer, sizeof(info->sdf.issuer), "util-vm");
	snprintf((char *)info->sdf.name, sizeof(info->sdf.name), "null");
	snprintf(info->engine, sizeof(info->engine), "%s", engine);
	for (unsigned i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		info->ops |= UINT64_C(1) << ops[i];
}

static int null_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	if (*conf->arg)
		return err_set(err, -EINVAL, "open card %s: null takes no argument", conf->name);
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : err_sys(err, -ENOMEM, "open card %s", conf->name);
}

static void null_close(struct card *card)
{
	free(card);
}

static void null_info(struct card *card, struct card_info *info)
{
	(void)card;
	info_of(info, "nothing");
}

static uint32_t null_run(struct card *card, struct card_call *call)
{
	(void)card;
	return answer(call);
}

static void null_release(struct card *card, enum card_object_type type, struct card_object *o)
{
	(void)card;
	(void)type;
	free(o);
}



const struct card_driver card_null = {
	.name = "null",
	.help = "gives data back as it came",
	.open = null_open,
	.close = null_close,
	.info = null_info,
	.run = null_run,
	.release = null_release,
};

static int slow_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	struct slow *s = calloc(1, sizeof(*s));
	const char *comma = strchrnul(conf->arg, ',');
	char rate[32];
	uint64_t us = 0;

	if (!s)
		return err_sys(err, -ENOMEM, "open card %s", conf->name);
	snprintf(rate, sizeof(rate), "%.*s", (int)(comma - conf->arg), conf->arg);
	if (units_size(rate, &s->rate) || !s->rate || (*comma && units_duration(comma + 1, &us))) {
		free(s);
		return err_set(err, -EINVAL, "open card %s: '%.64s' is not RATE[,TIME], as in slow:20M,50us",
			       conf->name, conf->arg);
	}
	s->fixed_ns = us * 1000;
	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->timer < 0) {
		free(s);
		return err_sys(err, -errno, "open card %s: timer", conf->name);
	}
	*out = &s->card;
	return 0;
}

static void slow_close(struct card *card)
{
	struct slow *s = (struct slow *)card;

	close(s->timer);
	free(s);
}

static void slow_info(struct card *card, struct card_info *info)
{
	info_of(info, "a clock");
	info->rate = ((struct slow *)card)->rate;
}

static void set_timer(struct slow *s)
{
	uint64_t at = s->count ? s->queue[s->first].due_ns : 0;
	struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};

	(void)timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static uint32_t slow_run(struct card *card, struct card_call *call)
{
	struct slow *s = (struct slow *)card;
	uint64_t now = units_now_ns(), begin = s->busy_until_ns > now ? s->busy_until_ns : now;
	unsigned at = (s->first + s->count) % SLOW_DEPTH;

	if (s->count == SLOW_DEPTH)
		return SDR_HARDFAIL; /* room() was not asked */
	s->busy_until_ns = begin + s->fixed_ns + call->in_len * UINT64_C(1000000000) / s->rate;
	s->queue[at].call = call;
	s->queue[at].due_ns = s->busy_until_ns;
	s->queue[at].status = answer(call);
	if (!s->count++)
		set_timer(s);
	return CARD_PENDING;
}

static int slow_fd(struct card *card)
{
	return ((struct slow *)card)->timer;
}

static struct card_call *slow_reap(struct card *card, uint32_t *status)
{
	struct slow *s = (struct slow *)card;
	struct card_call *call;
	uint64_t n;

	if (!s->count || s->queue[s->first].due_ns > units_now_ns()) {
		if (read(s->timer, &n, sizeof(n)) < 0 && errno != EAGAIN)
			return NULL;
		set_timer(s);
		return NULL;
	}
	call = s->queue[s->first].call;
	*status = s->queue[s->first].status;
	s->first = (s->first + 1) % SLOW_DEPTH;
	s->count--;
	return call;
}

static unsigned slow_room(struct card *card)
{
	return SLOW_DEPTH - ((struct slow *)card)->count;
}

const struct card_driver card_slow = {
	.name = "slow",
	.help = "slow:RATE[,TIME]: as null, at RATE bytes a second and TIME a call",
	.open = slow_open,
	.close = slow_close,
	.info = slow_info,
	.run = slow_run,
	.release = null_release,
	.fd = slow_fd,
	.reap = slow_reap,
	.room = slow_room,
};
