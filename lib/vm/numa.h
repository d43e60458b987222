/* SPDX-License-Identifier: MIT */
#ifndef VM_NUMA_H
#define VM_NUMA_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "vm/topology.h"

/* How much of the process's memory lies on each NUMA node (numa(7), numa_maps). -ESRCH, -EACCES;
 * -ENOTSUP: the kernel does not tell. */
int vm_numa_bytes(pid_t pid, uint64_t bytes[TOPOLOGY_NODES], struct err *err);

/* One line of numa_maps: add its pages to @bytes. */
void vm_numa_line(const char *line, uint64_t bytes[TOPOLOGY_NODES]);

#endif
