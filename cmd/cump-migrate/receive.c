/* SPDX-License-Identifier: MIT */
/*
 * receive: take in pairs. A process a connection, so that one that fails takes no other
 * with it; what they share is on disk (journals, reservations).
 */
#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/notify.h"
#include "cump.h"
#include "drivers.h"
#include "pair/message.h"
#include "pairfile.h"

#define HANDSHAKE_MS 10000
#define CHILDREN_MAX 16
#define LISTEN_FDS_START 3
#define NO_PAIR 100 /* a child's exit status: it answered a question, or refused */

struct server {
	int listener, signals;
	struct net_security *sec;
	pid_t child[CHILDREN_MAX];
	int children, last_status;
	bool stopping;
};

/* ---- one pair ---- */

static bool fits(const struct pair_place *p, const struct pair_identity id[PAIR_MEMBERS])
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (p->uuid[i][0] && strcmp(p->uuid[i], id[i].uuid) != 0)
			return false;
	return true;
}

static int try_file(const char *path, const char *dir, const struct pair_identity *id,
		    struct pair_place *place, struct err *err)
{
	char *text = pairfile_read(path, err);
	int rc;

	if (!text)
		return err->code;
	rc = pairfile_parse(path, text, dir, id, place, err);
	free(text);
	if (rc || fits(place, id))
		return rc;
	pairfile_free(place);
	return err_set(err, -ENOENT, "place pair: %s is for another pair", path);
}

static int search(const char *pairs, const char *dir, const struct pair_identity *id,
		  struct pair_place *place, struct err *err)
{
	char pattern[4200];
	struct stat st;
	glob_t g;
	int rc = -ENOENT;

	if (stat(pairs, &st))
		return err_sys(err, -errno, "place pair: %s", pairs);
	if (!S_ISDIR(st.st_mode))
		return try_file(pairs, dir, id, place, err);
	snprintf(pattern, sizeof(pattern), "%s/*.pair", pairs);
	if (glob(pattern, 0, NULL, &g))
		return err_set(err, -ENOENT, "place pair: no *.pair file in %s", pairs);
	for (size_t i = 0; rc == -ENOENT && i < g.gl_pathc; i++)
		rc = try_file(g.gl_pathv[i], dir, id, place, err);
	globfree(&g);
	if (rc == -ENOENT)
		err_set(err, rc, "place pair: no file in %s is for VM %s", pairs, id[PAIR_VM].uuid);
	return rc;
}

static int make_dir(const char *id, char dir[108], struct err *err)
{
	char *slash;

	if (snprintf(dir, 108, "%s/%.13s", cump_run_dir(), id) >= 100)
		return err_set(err, -ENAMETOOLONG, "make run folder: %s is too long (--run-dir)",
			       cump_run_dir());
	for (slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(dir, 0755);
		*slash = '/';
	}
	if (mkdir(dir, 0700))
		return err_sys(err, -errno, "make run folder %s", dir);
	return 0;
}

static int find_place(void *ctx, const char *id, const struct pair_identity ident[PAIR_MEMBERS],
		      const char *handed, struct pair_place *place, struct err *err)
{
	char dir[108];
	int rc = make_dir(id, dir, err);

	(void)ctx;
	if (rc)
		return rc;
	rc = cump_opts.pairs
		     ? search(cump_opts.pairs, dir, ident, place, err)
		     : err_set(err, -ENOENT, "place pair: no --pairs given here, and none handed over");
	if (rc == -ENOENT && handed && !cump_opts.accept_handed)
		rc = err_set(err, -EACCES, "place pair: a pair file was handed over, but this end "
			     "does not take any (--accept-handed)");
	else if (rc == -ENOENT && handed)
		rc = pairfile_parse("handed-over pair file", handed, dir, ident, place, err);
	if (rc) {
		rmdir(dir);
		return rc;
	}
	for (unsigned i = 0; cump_opts.debug_streams && i < PAIR_MEMBERS; i++)
		message_add(place->place[i], "streams", cump_opts.debug_streams);
	if (handed && cump_opts.accept_handed)
		pairfile_show(place);
	return 0;
}

static struct pair_receive settings(void)
{
	return (struct pair_receive){
		.state_dir = cump_state_dir(),
		.limits = cump_limits(),
		.find_place = find_place,
		.find_driver = driver_find,
	};
}

static int serve(struct server *s, int fd)
{
	struct pair_receive conf = settings();
	struct pair_report report = {0};
	struct cump_watch watch;
	struct net_conn *conn;
	struct err err = {0};
	enum pair_outcome out;
	char text[300];
	int status;

	if (net_conn_open(s->sec, fd, HANDSHAKE_MS, &conn, &err)) {
		log_error("%s", err.text);
		return NO_PAIR;
	}
	log_verbose("connected: %s", net_conn_describe(conn, text, sizeof(text)));
	cump_watch_begin(&watch, &conf.hooks);
	out = pair_receive(&conf, conn, &report, &err);
	cump_watch_end(&watch);
	if (out == PAIR_DONE && !report.step_us[STEP_RECEIVE_DATA])
		return NO_PAIR;
	status = cump_finish(&report, out, &err);
	json_object_put(report.receipts);
	return out == PAIR_REFUSED || out == PAIR_NO ? NO_PAIR : status;
}

/* ---- the server ---- */

static void to_child(struct server *s, int fd)
{
	sigset_t none;
	int status;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close(s->listener);
	close(s->signals);
	status = serve(s, fd);
	fflush(NULL);
	_exit(status);
}

static void accept_one(struct server *s)
{
	struct err err = {0};
	char peer[128];
	int fd = net_accept(s->listener, peer, sizeof(peer), &err);
	pid_t pid;

	if (fd < 0) {
		if (fd != -EAGAIN)
			log_warn("%s", err.text);
		return;
	}
	log_verbose("connection from %s", peer);
	pid = s->children < CHILDREN_MAX ? fork() : -1;
	if (pid == 0)
		to_child(s, fd);
	if (pid > 0)
		s->child[s->children++] = pid;
	else
		log_error("serve %s: too many at once", peer);
	close(fd);
}

static void say(void *ctx, const char *id, const char *role, const char *outcome,
		const char *detail)
{
	(void)ctx;
	if (!strcmp(role, "sink"))
		log_note("pair %s that a receiver left: %s (%s)", id, outcome, detail);
}

/*
 * What a receiver that was killed left: what was not promised goes, what was promised waits. In a
 * process of its own, as all that serves a pair is: libxl, where it is a pair of Xen's, needs the
 * SIGCHLD that is blocked here, and its context is no heritage for the next child.
 */
static void clean_up(void)
{
	struct pair_recover conf = {.state_dir = cump_state_dir(), .find_driver = driver_find,
				    .say = say, .sinks_only = true};
	pid_t pid = fork();
	sigset_t none;

	if (pid < 0)
		log_error("clean up: %s", strerror(errno));
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	if (pid)
		return;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	pair_recover(&conf, NULL);
	fflush(NULL);
	_exit(EXIT_DONE);
}

/* *@ours: the socket was made here, and goes with us; else it is the service manager's. */
static void child_ended(struct server *s, int i, int status)
{
	s->child[i] = s->child[--s->children];
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_PAIR)
		return;
	if (WIFSIGNALED(status))
		clean_up();
	s->last_status = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
	if (cump_opts.once)
		s->stopping = true;
}

static void reap(struct server *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < s->children; i++)
			if (s->child[i] == pid) {
				child_ended(s, i, status);
				break;
			}
}

static void on_signal(struct server *s)
{
	struct signalfd_siginfo si;

	while (read(s->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD) {
			reap(s);
			continue;
		}
		s->stopping = true;
		for (int i = 0; i < s->children; i++)
			kill(s->child[i], SIGTERM); /* each rolls back what it may */
	}
}

static int loop(struct server *s)
{
	for (;;) {
		struct pollfd p[2] = {{s->signals, POLLIN, 0},
				      {s->stopping ? -1 : s->listener, POLLIN, 0}};

		if (s->stopping && !s->children)
			return cump_opts.once ? s->last_status : EXIT_DONE;
		poll(p, 2, -1);
		if (p[0].revents)
			on_signal(s);
		if (p[1].revents && !s->stopping)
			accept_one(s);
	}
}

static int open_listener(const char *address, bool *ours, struct err *err)
{
	const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	struct net_addr addr;

	*ours = !(fds && pid && atoi(pid) == getpid() && atoi(fds) == 1);
	if (!*ours)
		return LISTEN_FDS_START; /* socket activation, sd_listen_fds(3) */
	if (net_addr_parse(address, &addr, err))
		return err->code;
	return net_listen(&addr, 16, err);
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int cump_receive(int argc, char **argv)
{
	struct server s = {0};
	struct err err = {0};
	struct net_addr bound;
	char text[300];
	bool ours, known;
	int status;

	if (argc != 1)
		return cli_usage_error("one ADDRESS is needed");
	status = cump_security(true, &s.sec, NULL);
	if (status)
		return status;
	clean_up();
	s.listener = open_listener(argv[0], &ours, &err);
	if (s.listener < 0) {
		log_error("%s", err.text);
		net_security_free(s.sec);
		return err.code == -EINVAL ? EXIT_USAGE : EXIT_REFUSED;
	}
	s.signals = open_signals();
	known = !net_local_addr(s.listener, &bound, NULL);
	if (known)
		log_note("listening at %s", net_addr_format(&bound, text, sizeof(text)));
	notify("READY=1");
	status = loop(&s);
	notify("STOPPING=1");
	close(s.listener);
	net_security_free(s.sec);
	if (ours && known && bound.family == NET_UNIX)
		unlink(bound.path);
	return status;
}
