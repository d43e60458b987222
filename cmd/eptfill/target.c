/* SPDX-License-Identifier: MIT */
/* A VM, and all that can be known of its memory from outside. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "eptfill.h"

static volatile sig_atomic_t seen;

static void on_signal(int sig)
{
	seen = sig;
}

void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

int signal_seen(void)
{
	return seen;
}

static int read_slots(struct target *t, struct err *err)
{
	const struct vm_memory_ops *ops = t->vm.driver ? t->vm.driver->memory : NULL;
	struct err why = {0};
	int rc = -ENODATA;

	if (ops)
		rc = ops->slots(&t->vm, t->has_kvm, &t->slots, &why);
	if (!rc)
		return 0;
	if (why.code)
		log_verbose("%s; its memory is told by its size and its mappings", why.text);
	t->guessed = true;
	return vm_slots_guess(&t->mappings, t->vm.mem_bytes, &t->slots, err);
}

int target_refresh(struct target *t, struct err *err)
{
	const struct vm_memory_ops *ops = t->vm.driver ? t->vm.driver->memory : NULL;
	struct err why = {0};
	int rc;

	vm_slots_free(&t->slots);
	vm_mappings_free(&t->mappings);
	t->guessed = t->has_state = false;
	rc = kvm_find(t->vm.pid, &t->kvm, err);
	t->has_kvm = !rc;
	if (rc && rc != -ENOENT)
		return rc;
	rc = vm_mappings_read(t->vm.pid, &t->mappings, err);
	if (!rc)
		rc = read_slots(t, err);
	if (rc)
		return rc;
	vm_resident_of(&t->slots, &t->mappings, &t->resident);
	if (ops && !ops->state(&t->vm, &t->state, &why))
		t->has_state = true;
	else
		log_verbose("%s: of a balloon, of migrations nothing is known", why.text);
	return 0;
}

int target_open(const char *name, struct target *t, struct err *err)
{
	int rc;

	memset(t, 0, sizeof(*t));
	rc = vm_find(name, &t->vm, err);
	if (!rc && !t->vm.pid)
		rc = err_set(err, -ENOENT, "%s: its process is not known (name it by pid:N)", name);
	if (!rc)
		rc = target_refresh(t, err);
	if (rc)
		target_close(t);
	return rc;
}

void target_close(struct target *t)
{
	vm_slots_free(&t->slots);
	vm_mappings_free(&t->mappings);
}

int target_counters(const struct target *t, struct kvm_stats *s, struct err *err)
{
	const struct vm_memory_ops *ops = t->vm.driver ? t->vm.driver->memory : NULL;
	struct err other = {0};
	int rc = kvm_read_stats(&t->kvm, s, err);

	if (rc == -ENODATA && ops && !ops->counters(&t->vm, s, &other))
		return 0;
	if (rc && other.code)
		log_verbose("%s: %s", target_label(t), other.text);
	return rc;
}

uint64_t target_mappable(const struct target *t)
{
	return t->guessed ? t->vm.mem_bytes : vm_slots_bytes(&t->slots, true);
}

const char *target_label(const struct target *t)
{
	return *t->vm.name ? t->vm.name : t->vm.target;
}

unsigned coverage(uint64_t mapped, uint64_t total)
{
	if (!total)
		return 0;
	if (mapped >= total)
		return 10000;
	return (unsigned)((double)mapped / (double)total * 10000.0);
}

void undone_by(struct target *t, const struct vm_resident *before, char *buf, size_t size)
{
	struct vm_resident *now = &t->resident;
	struct err err = {0};
	char bytes[32];
	bool gives, split;

	*buf = '\0';
	vm_mappings_free(&t->mappings);
	if (vm_mappings_read(t->vm.pid, &t->mappings, &err))
		return;
	vm_resident_of(&t->slots, &t->mappings, now);
	gives = t->state.balloon || t->state.free_page_reporting;
	/* What was all zeros is given back when a huge page is split (Linux 6.12). */
	split = now->huge + (1u << 21) <= before->huge && !gives;
	if (now->swap > before->swap)
		snprintf(buf, size, "%s of it were swapped out",
			 units_format_size(now->swap - before->swap, bytes, sizeof(bytes)));
	else if (now->ksm > before->ksm)
		snprintf(buf, size, "KSM merged %s of it",
			 units_format_size(now->ksm - before->ksm, bytes, sizeof(bytes)));
	else if (split)
		snprintf(buf, size, "huge pages were split (%s less)",
			 units_format_size(before->huge - now->huge, bytes, sizeof(bytes)));
	else if (now->rss < before->rss)
		snprintf(buf, size, "the VM gave %s of host memory back (%s)",
			 units_format_size(before->rss - now->rss, bytes, sizeof(bytes)),
			 t->state.free_page_reporting ? "free-page reporting" :
			 t->state.balloon	      ? "its balloon" :
						    "or it was discarded");
	else if (now->huge + (1u << 21) <= before->huge)
		snprintf(buf, size, "huge pages were split (%s less)",
			 units_format_size(before->huge - now->huge, bytes, sizeof(bytes)));
}

void preflight(const struct target *t, struct room *room)
{
	char have[32];

	memset(room, 0, sizeof(*room));
	room_check(room, t->vm.pid, &t->slots, &t->mappings);
	if (!t->has_state)
		return;
	if (t->state.balloon_bytes)
		room_add(room, true, "its balloon holds %s: a fill would take back what the guest gave "
				     "(deflate it: QMP balloon)",
			 units_format_size(t->state.balloon_bytes, have, sizeof(have)));
	if (t->state.free_page_reporting)
		room_add(room, true, "its guest reports free pages, and the host takes them: it would undo "
				     "the fill (virtio-balloon free-page-reporting=off)");
	if (t->state.migrating)
		room_add(room, true, "it is being migrated: its pages are write-protected in turn (fill it "
				     "when that is over)");
}

int refusal(const struct err *err, int rc)
{
	log_error("%s", err->text);
	return rc == -EINVAL ? EXIT_USAGE : EXIT_REFUSED;
}

void print_json(struct json_object *o)
{
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
								 JSON_C_TO_STRING_NOSLASHESCAPE));
	fflush(stdout);
	json_object_put(o);
}

void add_u64(struct json_object *o, const char *key, uint64_t value)
{
	if (value != UINT64_MAX)
		json_object_object_add(o, key, json_object_new_uint64(value));
}

void add_str(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

void add_bool(struct json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

/* @hundredths as a number with two digits, not as the nearest double. */
void add_percent(struct json_object *o, const char *key, unsigned hundredths)
{
	char text[16];

	snprintf(text, sizeof(text), "%u.%02u", hundredths / 100, hundredths % 100);
	json_object_object_add(o, key, json_object_new_double_s(hundredths / 100.0, text));
}
