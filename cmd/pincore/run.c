/* SPDX-License-Identifier: MIT */
/*
 * run: the VM is on its CPUs before its first instruction, and every thread inherits that; its memory
 * comes from their NUMA node. It becomes the command (exec), so that nothing of ours stays behind.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "pincore.h"

static int go_there(const char *text, const cpu_set_t *wanted)
{
	cpu_set_t now;

	if (sched_setaffinity(0, sizeof(*wanted), wanted)) {
		log_error("run on CPUs %s: %s", text,
			  errno == EINVAL ? "none of them is on line and in our cpuset" : strerror(errno));
		return EXIT_REFUSED;
	}
	if (sched_getaffinity(0, sizeof(now), &now) || !CPU_EQUAL(&now, wanted)) {
		log_error("run on CPUs %s: not all of them are on line and in our cpuset", text);
		return EXIT_REFUSED;
	}
	return 0;
}

int pin_run(int argc, char **argv)
{
	cpu_set_t set;
	int rc;

	if (argc < 2)
		return cli_usage_error("CPUS and a COMMAND are needed: run 2-5 -- qemu-system-x86_64 ...");
	rc = units_cpulist(argv[0], &set);
	if (rc)
		return cli_usage_error("%s: not a CPU list such as 2,4-7", argv[0]);
	rc = go_there(argv[0], &set);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_DFL); /* which our own output had ignored */
	execvp(argv[1], argv + 1);
	log_error("run %s: %s", argv[1], strerror(errno));
	return EXIT_REFUSED;
}
