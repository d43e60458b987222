/* SPDX-License-Identifier: MIT */
/* QEMU: a VM's memory by QMP. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/drivers.h"
#include "vm/guest.h"
#include "vm/qemu_mtree.h"
#include "vm/qmp.h"

#define QMP_MS 5000
#define POPULATE_MS (30 * 60 * 1000) /* it answers when all is there */

static int open_monitor(const struct vm *vm, struct qmp **out, struct err *err)
{
	if (!*vm->qmp_path)
		return err_set(err, -ENODATA, "%s: it has no QMP socket that we know", vm->target);
	return qmp_open(vm->qmp_path, QMP_MS, out, err);
}

/* The answer's text is the caller's to free. */
static int human(struct qmp *qmp, const char *line, char **text, struct err *err)
{
	struct json_object *ret = NULL;
	char quoted[128];
	int rc;

	rc = qmp_call(qmp, QMP_MS, &ret, err, "human-monitor-command", "{\"command-line\": %s}",
		      qmp_quote(line, quoted, sizeof(quoted)));
	if (rc)
		return rc;
	*text = strdup(json_object_is_type(ret, json_type_string) ? json_object_get_string(ret) : "");
	json_object_put(ret);
	return *text ? 0 : err_sys(err, -ENOMEM, "%s", line);
}

static int place(struct qmp *qmp, struct vm_slot *slot, struct err *err)
{
	char line[64], *text = NULL;
	int rc;

	snprintf(line, sizeof(line), "gpa2hva 0x%" PRIx64, slot->gpa);
	rc = human(qmp, line, &text, err);
	if (!rc && qemu_gpa2hva_parse(text, &slot->hva)) {
		/* ROM that is read as a device at present has no such address, and needs none. */
		slot->hva = 0;
		rc = slot->rom ? 0 : err_set(err, -EPROTO, "%s: no address for it: %.100s", line, text);
	}
	free(text);
	return rc;
}

static int memory_slots(const struct vm *vm, bool with_kvm, struct vm_slots *out, struct err *err)
{
	struct qmp *qmp = NULL;
	char *text = NULL;
	int rc;

	*out = (struct vm_slots){0};
	rc = open_monitor(vm, &qmp, err);
	if (rc)
		return rc;
	rc = human(qmp, "info mtree -f", &text, err);
	if (!rc)
		rc = qemu_mtree_parse(text, with_kvm, out, err);
	free(text);
	for (size_t i = 0; !rc && i < out->n; i++)
		rc = place(qmp, &out->slot[i], err);
	qmp_close(qmp);
	if (rc) {
		vm_slots_free(out);
		err_prefix(err, "%s", vm->target);
	}
	return rc;
}

/* --- devices --- */

typedef int child_fn(struct qmp *qmp, const char *path, const char *type, void *ctx);

static int each_child(struct qmp *qmp, const char *folder, child_fn *fn, void *ctx, struct err *err)
{
	struct json_object *list = NULL;
	char path[256], name[128];
	int rc = qmp_call(qmp, QMP_MS, &list, err, "qom-list", "{\"path\": \"%s\"}", folder);

	for (size_t i = 0; !rc && json_object_is_type(list, json_type_array) &&
			   i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *type = qmp_str(o, "type");

		if (!type || strncmp(type, "child<", 6) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder,
			 qmp_clean(qmp_str(o, "name"), name, sizeof(name)));
		rc = fn(qmp, path, type, ctx);
	}
	json_object_put(list);
	return rc;
}

static int look_at_device(struct qmp *qmp, const char *path, const char *type, void *ctx)
{
	struct vm_memory_state *s = ctx;
	struct json_object *value = NULL;
	char quoted[300];

	if (!strncmp(type, "child<vfio-", 11))
		s->assigned_device = true;
	if (strncmp(type, "child<virtio-balloon", 20) != 0)
		return 0;
	s->balloon = true;
	if (!qmp_call(qmp, QMP_MS, &value, NULL, "qom-get",
		      "{\"path\": %s, \"property\": \"free-page-reporting\"}",
		      qmp_quote(path, quoted, sizeof(quoted))))
		s->free_page_reporting = json_object_get_boolean(value);
	json_object_put(value);
	return 0;
}

static bool logs_dirty_pages(const char *status)
{
	static const char *const during[] = {"setup", "active", "postcopy-active", "device",
					     "pre-switchover", "colo", "cancelling", "wait-unplug"};

	for (size_t i = 0; status && i < sizeof(during) / sizeof(during[0]); i++)
		if (!strcmp(status, during[i]))
			return true;
	return false;
}

static int memory_state(const struct vm *vm, struct vm_memory_state *s, struct err *err)
{
	struct json_object *balloon = NULL, *migrate = NULL;
	struct qmp *qmp = NULL;
	int rc;

	memset(s, 0, sizeof(*s));
	rc = open_monitor(vm, &qmp, err);
	if (rc)
		return rc;
	rc = each_child(qmp, "/machine/peripheral", look_at_device, s, err);
	if (!rc)
		rc = each_child(qmp, "/machine/peripheral-anon", look_at_device, s, err);
	if (!rc && s->balloon && !qmp_call(qmp, QMP_MS, &balloon, NULL, "query-balloon", NULL)) {
		uint64_t actual = qmp_u64(balloon, "actual", vm->mem_bytes);

		s->balloon_bytes = actual < vm->mem_bytes ? vm->mem_bytes - actual : 0;
	}
	if (!rc)
		rc = qmp_call(qmp, QMP_MS, &migrate, err, "query-migrate", NULL);
	if (!rc)
		s->migrating = logs_dirty_pages(qmp_str(migrate, "status"));
	json_object_put(balloon);
	json_object_put(migrate);
	qmp_close(qmp);
	return rc;
}

static int populate_backend(struct qmp *qmp, const char *path, const char *type, void *ctx)
{
	struct err *err = ctx;
	char quoted[300];

	if (strncmp(type, "child<memory-backend-", 21) != 0)
		return 0;
	log_verbose("qom-set %s prealloc", path);
	return qmp_call(qmp, POPULATE_MS, NULL, err, "qom-set",
			"{\"path\": %s, \"property\": \"prealloc\", \"value\": true}",
			qmp_quote(path, quoted, sizeof(quoted)));
}

static int memory_populate(const struct vm *vm, struct err *err)
{
	struct qmp *qmp = NULL;
	int rc = open_monitor(vm, &qmp, err);

	if (rc)
		return rc;
	rc = each_child(qmp, "/objects", populate_backend, err, err);
	qmp_close(qmp);
	return rc;
}

/* --- counters (query-stats, QEMU 7.1) --- */

static void add_stats(struct json_object *list, struct kvm_stats *sum)
{
	for (size_t i = 0; json_object_is_type(list, json_type_array) &&
			   i < json_object_array_length(list); i++) {
		struct json_object *stats = NULL, *one = json_object_array_get_idx(list, i);

		if (!json_object_object_get_ex(one, "stats", &stats) ||
		    !json_object_is_type(stats, json_type_array))
			continue;
		for (size_t k = 0; k < json_object_array_length(stats); k++) {
			struct json_object *s = json_object_array_get_idx(stats, k);
			const char *name = qmp_str(s, "name");
			uint64_t value = qmp_u64(s, "value", UINT64_MAX);
			uint64_t *to = name ? kvm_stat_by_name(sum, name) : NULL;

			if (to && value != UINT64_MAX)
				*to = *to == UINT64_MAX ? value : *to + value;
		}
	}
}

static int read_counters(struct qmp *qmp, struct kvm_stats *out, struct err *err)
{
	struct json_object *of_vm = NULL, *of_vcpus = NULL;
	int rc;

	memset(out, 0xff, sizeof(*out));
	rc = qmp_call(qmp, QMP_MS, &of_vm, err, "query-stats", "{\"target\": \"vm\"}");
	if (!rc)
		rc = qmp_call(qmp, QMP_MS, &of_vcpus, err, "query-stats", "{\"target\": \"vcpu\"}");
	if (!rc) {
		add_stats(of_vm, out);
		add_stats(of_vcpus, out);
	}
	json_object_put(of_vm);
	json_object_put(of_vcpus);
	if (!rc && (out->pages_4k == UINT64_MAX || out->pf_taken == UINT64_MAX))
		return err_set(err, -ENODATA, "query-stats: it has no counters of KVM's");
	return rc;
}

static int memory_counters(const struct vm *vm, struct kvm_stats *out, struct err *err)
{
	struct qmp *qmp = NULL;
	int rc = open_monitor(vm, &qmp, err);

	if (!rc)
		rc = read_counters(qmp, out, err);
	qmp_close(qmp);
	return rc;
}

/* --- events --- */

struct vm_watch {
	struct qmp *qmp;
	vm_watch_fn *fn;
	void *ctx;
	uint64_t mem_bytes;
};

static void on_event(void *ctx, const char *name, struct json_object *data, uint64_t when_us)
{
	struct vm_watch *w = ctx;
	uint64_t actual;

	(void)when_us;
	if (!strcmp(name, "BALLOON_CHANGE")) {
		actual = qmp_u64(data, "actual", w->mem_bytes);
		w->fn(w->ctx, VM_EVENT_BALLOON, actual < w->mem_bytes ? w->mem_bytes - actual : 0);
	} else if (!strcmp(name, "MIGRATION")) {
		const char *status = qmp_str(data, "status");

		w->fn(w->ctx, VM_EVENT_MIGRATION,
		      status && !strcmp(status, "completed") ? 2 : logs_dirty_pages(status));
	} else if (!strcmp(name, "RESET")) {
		w->fn(w->ctx, VM_EVENT_RESET, 0);
	} else if (!strcmp(name, "SHUTDOWN")) {
		w->fn(w->ctx, VM_EVENT_SHUTDOWN, 0);
	}
}

static int watch_open(const struct vm *vm, vm_watch_fn *fn, void *ctx, struct vm_watch **out,
		      struct err *err)
{
	struct vm_watch *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return err_sys(err, -ENOMEM, "%s", vm->target);
	*w = (struct vm_watch){.fn = fn, .ctx = ctx, .mem_bytes = vm->mem_bytes};
	rc = open_monitor(vm, &w->qmp, err);
	if (rc) {
		free(w);
		return rc;
	}
	qmp_on_event(w->qmp, on_event, w);
	/* Migration tells its states only if asked to. */
	if (qmp_call(w->qmp, QMP_MS, NULL, err, "migrate-set-capabilities",
		     "{\"capabilities\": [{\"capability\": \"events\", \"state\": true}]}"))
		log_verbose("%s: no events of migrations: %s", vm->target, err ? err->text : "");
	*out = w;
	return 0;
}

static int watch_fd(const struct vm_watch *w)
{
	return qmp_fd(w->qmp);
}

static int watch_counters(struct vm_watch *w, struct kvm_stats *out, struct err *err)
{
	return read_counters(w->qmp, out, err);
}

static int watch_take(struct vm_watch *w, struct err *err)
{
	return qmp_poll(w->qmp, 0, err);
}

static void watch_close(struct vm_watch *w)
{
	if (!w)
		return;
	qmp_close(w->qmp);
	free(w);
}

const struct vm_memory_ops qemu_memory_ops = {
	.slots = memory_slots,
	.state = memory_state,
	.populate = memory_populate,
	.counters = memory_counters,
	.watch_open = watch_open,
	.watch_fd = watch_fd,
	.watch_counters = watch_counters,
	.watch_take = watch_take,
	.watch_close = watch_close,
};
