/* SPDX-License-Identifier: MIT */
/* The pair on the command line, and the options that several verbs share. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "cump.h"
#include "cump/union.h"
#include "drivers.h"
#include "pair/message.h"
#include "swtpm.h"
#include "vm/vm.h"

static int refuse(const struct err *err)
{
	log_error("%s", err->text);
	return EXIT_REFUSED;
}

static int qemu_where(const char *target, const char *role, struct json_object **where)
{
	struct err err = {0};
	struct vm vm;

	if (vm_find(target, &vm, &err))
		return refuse(&err);
	if (!vm.qmp_path[0]) {
		log_error("find VM %s: process %d has no QMP socket (-qmp unix:PATH,server=on,wait=off)",
			  target, (int)vm.pid);
		return EXIT_REFUSED;
	}
	*where = json_object_new_object();
	message_add(*where, "role", role);
	message_add(*where, "qmp", vm.qmp_path);
	return 0;
}

/* Is it a domain of Xen? A bare name can be; then its kind is, too. */
static bool is_xen(const char *target)
{
	struct err err = {0};
	struct vm vm;

	if (!strncmp(target, "xen:", 4))
		return true;
	return !strchr(target, ':') && !vm_find(target, &vm, &err) && vm.domid;
}

static int swtpm_where(const char *path, struct json_object **where)
{
	char *real = realpath(path, NULL);
	struct err err = {0};
	pid_t pid;

	if (!real) {
		err_sys(&err, -errno, "find vTPM %s", path);
		return refuse(&err);
	}
	*where = json_object_new_object();
	message_add(*where, "ctrl", real);
	free(real);
	if (!swtpm_pid(message_text(*where, "ctrl"), &pid, &err))
		return 0;
	json_object_put(*where);
	return refuse(&err);
}

/* pid:N of a swtpm: its command line names the control socket. */
static bool pid_of_swtpm(const char *target, char *ctrl, size_t size)
{
	if (strncmp(target, "pid:", 4) != 0)
		return false;
	return !swtpm_ctrl_of((pid_t)strtol(target + 4, NULL, 10), ctrl, size);
}

static int xen_where(const char *target, const char *role, struct json_object **where)
{
	struct err err = {0};
	struct vm vm;

	if (vm_find(target, &vm, &err))
		return refuse(&err);
	*where = json_object_new_object();
	message_add(*where, "role", role);
	message_add(*where, "uuid", vm.uuid);
	message_add(*where, "policy", cump_opts.policy ? cump_opts.policy : "");
	json_object_object_add(*where, "verify", json_object_new_boolean(cump_opts.verify));
	json_object_object_add(*where, "offline", json_object_new_boolean(cump_opts.offline));
	return 0;
}

/* Both are domains of this host. */
static int xen_pair(const struct pair_driver *driver[PAIR_MEMBERS],
		    struct json_object *where[PAIR_MEMBERS])
{
	enum cump_policy policy;
	int status;

	if (cump_opts.policy && cump_policy_parse(cump_opts.policy, &policy))
		return cli_usage_error("--policy: 'cump' or 'independent'");
	status = xen_where(cump_opts.vm, "vm", &where[PAIR_VM]);

	if (!status)
		status = xen_where(cump_opts.vtpm, "vtpm", &where[PAIR_VTPM]);
	if (status) {
		json_object_put(where[PAIR_VM]);
		where[PAIR_VM] = NULL;
	}
	driver[PAIR_VM] = driver[PAIR_VTPM] = driver_find("xen");
	return status;
}

int cump_pair(const struct pair_driver *driver[PAIR_MEMBERS],
	      struct json_object *where[PAIR_MEMBERS])
{
	char ctrl[300];
	int status;

	where[0] = where[1] = NULL;
	if (!cump_opts.vm || !cump_opts.vtpm)
		return cli_usage_error("a pair is --vm TARGET --vtpm TARGET");
	if (is_xen(cump_opts.vm) && driver_find("xen"))
		return xen_pair(driver, where);
	if (cump_opts.offline)
		return cli_usage_error("--offline: of domains of Xen only; QEMU moves all that it has while it runs");
	driver[PAIR_VM] = driver_find("qemu");
	status = qemu_where(cump_opts.vm, "vm", &where[PAIR_VM]);
	if (status)
		return status;
	if (!strncmp(cump_opts.vtpm, "swtpm:", 6) || pid_of_swtpm(cump_opts.vtpm, ctrl, sizeof(ctrl))) {
		driver[PAIR_VTPM] = driver_find("swtpm");
		status = swtpm_where(cump_opts.vtpm[0] == 's' ? cump_opts.vtpm + 6 : ctrl,
				     &where[PAIR_VTPM]);
	} else {
		driver[PAIR_VTPM] = driver_find("qemu");
		status = qemu_where(cump_opts.vtpm, "vtpm", &where[PAIR_VTPM]);
	}
	if (status) {
		json_object_put(where[PAIR_VM]);
		where[PAIR_VM] = NULL;
	}
	return status;
}

static const char *default_dir(const char *root, const char *env, const char *home)
{
	static char dir[2][4096];
	char *to = dir[env[4] == 'R']; /* XDG_RUNTIME_DIR or XDG_STATE_HOME */
	const char *base = getenv(env);

	if (geteuid() == 0)
		return root;
	if (base && *base)
		snprintf(to, sizeof(dir[0]), "%s/util-vm/cump-migrate", base);
	else
		snprintf(to, sizeof(dir[0]), "%s/%s/util-vm/cump-migrate",
			 getenv("HOME") ? getenv("HOME") : "/tmp", home);
	return to;
}

const char *cump_state_dir(void)
{
	if (cump_opts.state_dir)
		return cump_opts.state_dir;
	return default_dir("/var/lib/util-vm/cump-migrate", "XDG_STATE_HOME", ".local/state");
}

const char *cump_run_dir(void)
{
	if (cump_opts.run_dir)
		return cump_opts.run_dir;
	return default_dir("/run/util-vm/cump-migrate", "XDG_RUNTIME_DIR", ".cache");
}

static void add_path(struct json_object *o, const char *key, const char *path)
{
	char *real = path ? realpath(path, NULL) : NULL;

	if (real)
		message_add(o, key, real);
	free(real);
}

int cump_security(bool server, struct net_security **sec, char **conf_json)
{
	struct net_security_conf conf = {cump_opts.tls, cump_opts.psk, cump_opts.peer_name,
					 cump_opts.insecure, server};
	struct err err = {0};
	struct json_object *o;

	if (!!conf.tls_dir + !!conf.psk_file + conf.insecure != 1)
		return cli_usage_error("exactly one of --tls, --psk and --insecure is needed");
	if (net_security_new(&conf, sec, &err))
		return refuse(&err);
	if (!conf_json)
		return 0;
	o = json_object_new_object();
	add_path(o, "tls_dir", conf.tls_dir);
	add_path(o, "psk_file", conf.psk_file);
	if (conf.peer_name)
		message_add(o, "peer_name", conf.peer_name);
	json_object_object_add(o, "insecure", json_object_new_boolean(conf.insecure));
	*conf_json = strdup(json_object_to_json_string(o));
	json_object_put(o);
	return 0;
}

struct pair_limits cump_limits(void)
{
	return (struct pair_limits){
		.budget_us = cump_opts.budget_us,
		.max_rounds = cump_opts.max_rounds,
		.timeout_us = cump_opts.timeout_us,
		.rendezvous_us = cump_opts.rendezvous_us,
		.silence_us = cump_opts.silence_us,
		.compress = !cump_opts.no_compress,
		.zstd_level = cump_opts.level,
	};
}
