/* SPDX-License-Identifier: MIT */
/* The VM of a command line, and words about it. */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "pincore.h"

int subject_open(const char *target, struct subject *s)
{
	struct err err = {0};
	int rc;

	memset(s, 0, sizeof(*s));
	rc = vm_find(target, &s->vm, &err);
	if (!rc)
		rc = vm_threads(&s->vm, &s->threads, &s->n, &err);
	if (!rc && (!s->n || s->threads[0].role != VM_MAIN))
		rc = err_set(&err, -ESRCH, "read the threads of %s: the VM is gone", target);
	if (rc) {
		log_error("%s", err.text);
		subject_close(s);
		return rc == -EINVAL ? EXIT_USAGE : EXIT_REFUSED;
	}
	s->starttime = s->threads[0].starttime;
	return 0;
}

void subject_close(struct subject *s)
{
	free(s->threads);
	s->threads = NULL;
	s->n = 0;
}

unsigned subject_count(const struct subject *s, enum group g)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += plan_group(s->threads[i].role) == g;
	return n;
}

const char *subject_name(const struct subject *s)
{
	return *s->vm.name ? s->vm.name : s->vm.target;
}

const char *thread_label(const struct vm_thread *t, char *buf, size_t size)
{
	if (t->index >= 0)
		snprintf(buf, size, "%s %d", vm_role_name(t->role), t->index);
	else
		snprintf(buf, size, "%s", vm_role_name(t->role));
	return buf;
}

void print_json(struct json_object *o)
{
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static volatile sig_atomic_t noted;

static void note(int sig)
{
	noted = sig;
}

void signals_note(void)
{
	struct sigaction sa = {.sa_handler = note}; /* no SA_RESTART: what waits shall wake up */

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

int signal_noted(void)
{
	return noted;
}
