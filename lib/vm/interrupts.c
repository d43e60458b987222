/* SPDX-License-Identifier: MIT */
#include "vm/interrupts.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "vm/qmp.h"

static int read_line(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	*buf = '\0';
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return n < 0 ? (int)n : 0;
}

int interrupt_read(unsigned irq, struct interrupt *i)
{
	char path[64], text[UNITS_CPULIST_MAX];
	int rc;

	snprintf(path, sizeof(path), "/proc/irq/%u/smp_affinity_list", irq);
	rc = read_line(path, text, sizeof(text));
	if (!rc)
		rc = units_cpulist(text, &i->cpus);
	if (rc)
		return rc;
	i->irq = irq;
	snprintf(path, sizeof(path), "/sys/kernel/irq/%u/actions", irq);
	(void)read_line(path, text, sizeof(text));
	qmp_clean(text, i->name, sizeof(i->name));
	return 0;
}

int interrupts_on(const cpu_set_t *cpus, struct interrupt **list, size_t *n, struct err *err)
{
	DIR *dir = opendir("/proc/irq");
	struct dirent *d;

	*list = NULL;
	*n = 0;
	if (!dir)
		return err_sys(err, -errno, "read /proc/irq");
	while ((d = readdir(dir))) {
		struct interrupt i, *more;
		cpu_set_t both;

		if (!isdigit((unsigned char)*d->d_name) ||
		    interrupt_read((unsigned)strtoul(d->d_name, NULL, 10), &i))
			continue;
		CPU_AND(&both, &i.cpus, cpus);
		if (!CPU_COUNT(&both) || !*i.name) /* nobody has asked for it */
			continue;
		more = realloc(*list, (*n + 1) * sizeof(*more));
		if (!more) {
			free(*list);
			*list = NULL;
			closedir(dir);
			return err_sys(err, -ENOMEM, "read /proc/irq");
		}
		*list = more;
		more[(*n)++] = i;
	}
	closedir(dir);
	return 0;
}

int interrupt_move(unsigned irq, const cpu_set_t *cpus)
{
	char path[64], text[UNITS_CPULIST_MAX];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/proc/irq/%u/smp_affinity_list", irq);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	units_format_cpulist(cpus, text, sizeof(text));
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}
