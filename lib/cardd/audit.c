/* SPDX-License-Identifier: MIT */
/*
 * Who used which key for what: JSON lines. A refusal has a line of its own (so many a tick, the
 * rest is counted); uses are added up over a tick, as thousands come a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cardd/inside.h"

#define DENIED_LINES 20 /* a tick, all VMs together */

static const char *const class_names[CARD_CLASSES] = {"ecc", "rsa", "kek"};

int audit_open(struct cardd *d, struct err *err)
{
	d->audit_fd = -1;
	if (!d->conf->audit[0])
		return 0;
	d->audit_fd = open(d->conf->audit, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return d->audit_fd < 0 ? err_sys(err, -errno, "open %s", d->conf->audit) : 0;
}

static struct json_object *line_new(const struct cardd_vm *vm, enum card_key_class class, uint32_t index)
{
	struct json_object *o = json_object_new_object();
	const struct cardd_key *keys = vm->conf->keys[class];
	char when[32];

	json_object_object_add(o, "schema", json_object_new_string("util-vm/cardshare/audit/1"));
	json_object_object_add(o, "when", json_object_new_string(
						units_iso8601(units_realtime_us(), when, sizeof(when))));
	json_object_object_add(o, "vm", json_object_new_string(vm->conf->name));
	json_object_object_add(o, "class", json_object_new_string(class_names[class]));
	json_object_object_add(o, "index", json_object_new_int64(index));
	if (keys && index <= CARDD_INDEX_MAX && keys[index].rights)
		json_object_object_add(o, "key", json_object_new_string(keys[index].name));
	return o;
}

static void line_write(struct cardd *d, struct json_object *o)
{
	char buf[1024];
	int n = snprintf(buf, sizeof(buf), "%s\n",
			 json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));

	json_object_put(o);
	if (n <= 0 || n >= (int)sizeof(buf))
		return;
	if (write(d->audit_fd, buf, (size_t)n) != n && !d->audit_failed) {
		d->audit_failed = true;
		log_error("write %s: %s: key uses are not recorded", d->conf->audit, strerror(errno));
	}
}

void audit_denied(struct cardd_vm *vm, const struct card_request *rq, enum card_key_class class)
{
	struct cardd *d = vm->d;
	struct json_object *o;

	if (rq->key <= CARDD_INDEX_MAX && vm->uses[class])
		vm->uses[class][rq->key].denied++;
	if (d->audit_fd < 0 || d->denied_lines >= DENIED_LINES)
		return;
	d->denied_lines++;
	o = line_new(vm, class, rq->key);
	json_object_object_add(o, "denied", json_object_new_string(card_op_info(rq->op)->name));
	line_write(d, o);
}

void audit_flush(struct cardd *d)
{
	d->denied_lines = 0;
	if (d->audit_fd < 0)
		return;
	for (struct cardd_vm *vm = d->vms; vm; vm = vm->next)
		for (unsigned class = 0; class < CARD_CLASSES; class++)
			for (uint32_t i = 1; vm->uses[class] && i <= CARDD_INDEX_MAX; i++) {
				struct cardd_use *u = &vm->uses[class][i];
				struct json_object *o;

				if (!(u->done | u->failed | u->denied))
					continue;
				o = line_new(vm, class, i);
				json_object_object_add(o, "done", json_object_new_int64((int64_t)u->done));
				json_object_object_add(o, "failed", json_object_new_int64((int64_t)u->failed));
				json_object_object_add(o, "denied_count",
						       json_object_new_int64((int64_t)u->denied));
				line_write(d, o);
				*u = (struct cardd_use){0};
			}
}
