/* SPDX-License-Identifier: MIT */
/*
 * xen_alone: one domain moved alone by what moves a pair (same engine, stream, wire and commit), to
 * compare with. Its other member is nothing at all. Prints the report as cump-migrate does.
 *	xen_alone receive tcp:ADDRESS		one domain, then ends
 *	xen_alone send DOMAIN tcp:ADDRESS
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "pair/message.h"
#include "pair/pair.h"
#include "vm/vm.h"

#include "../cmd/cump-migrate/drivers.h"

#define NOBODY "alone"

static int nothing;

/* ---- a member that is none ---- */

static int open_nothing(struct json_object *where, void **m, struct err *err)
{
	(void)where, (void)err;
	*m = &nothing;
	return 0;
}

static struct json_object *describe_nothing(void *m)
{
	(void)m;
	return json_object_new_object();
}

static int identify_nothing(void *m, struct pair_identity *id, struct err *err)
{
	(void)m, (void)err;
	*id = (struct pair_identity){.name = NOBODY, .bound_to = NOBODY};
	return 0;
}

static int stream_of_nothing(void *m, int *stream, struct err *err)
{
	(void)m, (void)err;
	*stream = -1;
	return 0;
}

static int do_nothing(void *m, struct err *err)
{
	(void)m, (void)err;
	return 0;
}

static int ready_at_once(void *m, struct err *err)
{
	(void)m, (void)err;
	return 1;
}

static int stop_nothing(void *m, struct pair_stop *stop, struct err *err)
{
	(void)m, (void)stop, (void)err;
	return 0;
}

static int end_nothing(void *m, struct json_object **receipt, struct err *err)
{
	(void)m, (void)err;
	*receipt = NULL;
	return 0;
}

static bool yes(void *m)
{
	(void)m;
	return true;
}

static void close_nothing(void *m)
{
	(void)m;
}

static const struct pair_source_ops nothing_leaves = {
	.open = open_nothing, .where = describe_nothing, .identify = identify_nothing,
	.start = stream_of_nothing, .stop_begin = do_nothing, .stop_end = stop_nothing,
	.finish = do_nothing, .resume = do_nothing, .release = end_nothing, .runs = yes,
	.close = close_nothing,
};
static const struct pair_sink_ops nothing_comes = {
	.open = open_nothing, .place = describe_nothing, .launch = do_nothing,
	.identify = identify_nothing, .receive = stream_of_nothing, .ready = ready_at_once,
	.go = do_nothing, .drop = end_nothing, .alive = yes, .close = close_nothing,
};

/* ---- a domain without its other half ---- */

static int identify_alone(void *m, struct pair_identity *id, struct err *err)
{
	int rc = xen_source_ops.identify(m, id, err);

	snprintf(id->bound_to, sizeof(id->bound_to), NOBODY);
	return rc;
}

static int identify_here(void *m, struct pair_identity *id, struct err *err)
{
	int rc = xen_sink_ops.identify(m, id, err);

	snprintf(id->bound_to, sizeof(id->bound_to), NOBODY);
	return rc;
}

static int join_alone(void *vm, void *vtpm, struct err *err)
{
	(void)vtpm;
	return xen_source_ops.join(vm, NULL, err);
}

static struct pair_source_ops leaves;
static struct pair_sink_ops comes;
static const struct pair_driver driver[PAIR_MEMBERS] = {
	{"xen", &leaves, &comes, true},
	{"nothing", &nothing_leaves, &nothing_comes, true},
};

static const struct pair_driver *find_driver(const char *kind)
{
	return !strcmp(kind, "xen") ? &driver[0] : &driver[1];
}

/* ---- both ends ---- */

static char dir[] = "/tmp/xen-alone.XXXXXX";

static struct pair_limits limits(void)
{
	return (struct pair_limits){.budget_us = 300000, .max_rounds = 30, .rendezvous_us = 60000000,
				    .silence_us = 20000000};
}

static int tell(const struct pair_report *report, enum pair_outcome out, const struct err *err)
{
	struct json_object *o = pair_report_json(report, out, err->text);

	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
	return (int)out;
}

static int find_place(void *ctx, const char *id, const struct pair_identity ident[PAIR_MEMBERS],
		      const char *handed, struct pair_place *place, struct err *err)
{
	struct json_object *o = json_object_new_object();

	(void)ctx, (void)handed, (void)err;
	snprintf(place->dir, sizeof(place->dir), "%s/%.8s", dir, id);
	mkdir(place->dir, 0700);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		place->driver[i] = &driver[i];
		place->place[i] = i ? json_object_new_object() : o;
	}
	message_add(o, "role", "vm");
	message_add(o, "uuid", ident[0].uuid);
	message_add(o, "name", ident[0].name);
	message_add(o, "platform", ident[0].platform);
	message_add_number(o, "mem_bytes", ident[0].mem_bytes);
	return 0;
}

static int receive_one(struct net_security *security, const struct net_addr *address, struct err *err)
{
	struct pair_receive conf = {.state_dir = dir, .limits = limits(), .find_place = find_place,
				    .find_driver = find_driver};
	int listener = net_listen(address, 1, err), fd;
	struct pair_report report = {0};
	struct net_conn *conn;
	char peer[128];

	if (listener < 0)
		return EXIT_REFUSED;
	fprintf(stderr, "listening\n");
	poll(&(struct pollfd){listener, POLLIN, 0}, 1, -1);
	fd = net_accept(listener, peer, sizeof(peer), err);
	if (fd < 0 || net_conn_open(security, fd, 10000, &conn, err))
		return EXIT_REFUSED;
	return tell(&report, pair_receive(&conf, conn, &report, err), err);
}

static int send_one(struct net_security *security, const struct net_addr *address, const char *name,
		    struct err *err)
{
	struct pair_send conf = {.driver = {&driver[0], &driver[1]}, .dest = *address, .security = security,
				 .state_dir = dir, .limits = limits()};
	struct pair_report report = {0};
	struct vm vm;

	if (vm_find(name, &vm, err))
		return EXIT_REFUSED;
	conf.where[0] = json_object_new_object();
	conf.where[1] = json_object_new_object();
	message_add(conf.where[0], "role", "vm");
	message_add(conf.where[0], "uuid", vm.uuid);
	return tell(&report, pair_send(&conf, &report, err), err);
}

int main(int argc, char **argv)
{
	struct net_security_conf conf = {.insecure = true};
	struct net_security *security;
	struct net_addr address;
	struct err err = {0};
	int status = EXIT_USAGE;

	signal(SIGPIPE, SIG_IGN);
	leaves = xen_source_ops;
	leaves.identify = identify_alone;
	leaves.join = join_alone;
	comes = xen_sink_ops;
	comes.identify = identify_here;
	conf.server = argc == 3;
	if (argc < 3 || net_addr_parse(argv[argc - 1], &address, &err) || !mkdtemp(dir) ||
	    net_security_new(&conf, &security, &err))
		fprintf(stderr, "xen_alone: %s\n", err.text);
	else if (argc == 3)
		status = receive_one(security, &address, &err);
	else
		status = send_one(security, &address, argv[2], &err);
	if (status)
		fprintf(stderr, "xen_alone: %s\n", err.text);
	return status;
}
