/* SPDX-License-Identifier: MIT */
/* run: become the hypervisor, with our shim in it, which fills at the right moment. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "eptfill.h"

/* Beside the program, as built or as installed. */
static bool find_shim(char *path, size_t size)
{
	static const char *const places[] = {"../lib/util-vm/eptfill-shim.so", "../lib/eptfill-shim.so"};
	char self[PATH_MAX], joined[PATH_MAX + 64], real[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return false;
	self[n] = '\0';
	dirname(self);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(joined, sizeof(joined), "%s/%s", self, places[i]);
		if (realpath(joined, real) && !access(real, R_OK) && strlen(real) < size) {
			strcpy(path, real);
			return true;
		}
	}
	return false;
}

static bool find_command(const char *word, char *path, size_t size)
{
	const char *dirs = getenv("PATH");

	if (strchr(word, '/')) {
		snprintf(path, size, "%s", word);
		return !access(path, X_OK);
	}
	for (dirs = dirs ? dirs : "/usr/bin:/bin"; *dirs; dirs += strcspn(dirs, ":"), dirs += *dirs == ':') {
		int n = (int)strcspn(dirs, ":");

		snprintf(path, size, "%.*s%s%s", n, dirs, n ? "/" : "", word);
		if (!access(path, X_OK))
			return true;
	}
	return false;
}

/* A program without an interpreter loads nothing, and one with privileges of its own not this. */
static const char *why_not(const char *path)
{
	Elf64_Ehdr head;
	Elf64_Phdr part;
	struct stat st;
	const char *why = "it is statically linked, so nothing can be loaded into it";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		return fd < 0 ? strerror(errno) : (close(fd), "it cannot be read");
	if (st.st_mode & (S_ISUID | S_ISGID)) {
		close(fd);
		return "it is set-user-ID or set-group-ID, and the loader then ignores what is preloaded";
	}
	if (read(fd, &head, sizeof(head)) != (ssize_t)sizeof(head) ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) {
		close(fd);
		return NULL; /* a script: what it starts will have the shim */
	}
	for (unsigned i = 0; i < head.e_phnum; i++)
		if (pread(fd, &part, sizeof(part), (off_t)(head.e_phoff + i * head.e_phentsize)) ==
			    (ssize_t)sizeof(part) && part.p_type == PT_INTERP)
			why = NULL;
	close(fd);
	return why;
}

static int check_room(int argc, char **argv, uint64_t *bytes)
{
	struct room room = {0};

	*bytes = vm_memory_asked_for(argc, argv);
	room_check_memory(&room, getpid(), *bytes);
	for (unsigned i = 0; i < room.n; i++) {
		if (eptfill_opts.force)
			log_warn("run %s: %s", argv[0], room.finding[i].text);
		else
			log_error("run %s: %s (--force starts it all the same)", argv[0], room.finding[i].text);
	}
	return room.n && !eptfill_opts.force ? EXIT_REFUSED : EXIT_DONE;
}

static void set_environment(const char *shim)
{
	const char *others = getenv("LD_PRELOAD");
	char text[128], *list = NULL;

	if (others && *others && asprintf(&list, "%s:%s", shim, others) > 0) {
		setenv("EPTFILL_PRELOAD", others, 1);
		setenv("LD_PRELOAD", list, 1);
		free(list);
	} else {
		setenv("LD_PRELOAD", shim, 1);
	}
	snprintf(text, sizeof(text), "%u:%llu:%d:%d:%d", eptfill_opts.threads,
		 (unsigned long long)eptfill_opts.settle_us, eptfill_opts.keep_quirk,
		 eptfill_opts.host_only, cli_common.verbosity);
	setenv("EPTFILL_SHIM", text, 1);
}

int eptfill_run(int argc, char **argv)
{
	char shim[PATH_MAX], command[PATH_MAX], size[32];
	const char *why;
	uint64_t bytes;
	int status;

	if (!argc)
		return cli_usage_error("run: a command is missing; it stands after --");
	if (eptfill_opts.settle_us < 10000 || eptfill_opts.settle_us > 60000000)
		return cli_usage_error("--settle: not from 10ms to 60s");
	if (!find_shim(shim, sizeof(shim))) {
		log_error("run %s: eptfill-shim.so is neither beside the build nor installed", argv[0]);
		return EXIT_REFUSED;
	}
	if (!find_command(argv[0], command, sizeof(command))) {
		log_error("run %s: no such program", argv[0]);
		return EXIT_REFUSED;
	}
	why = why_not(command);
	if (why) {
		log_error("run %s: %s", argv[0], why);
		return EXIT_REFUSED;
	}
	status = check_room(argc, argv, &bytes);
	if (eptfill_opts.dry_run)
		printf("%s with %s preloaded, %s of memory\n", command, shim,
		       bytes ? units_format_size(bytes, size, sizeof(size)) : "an unknown amount");
	if (status || eptfill_opts.dry_run)
		return status;
	set_environment(shim);
	execv(command, argv);
	log_error("run %s: %s", argv[0], strerror(errno));
	return EXIT_REFUSED;
}
