/* SPDX-License-Identifier: MIT */
/* What stands before a Xen domain's stream, from the other host: an object, or refused; nothing is read beyond it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../cmd/cump-migrate/xen_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef HAVE_XEN
static void parse(int fd, size_t size)
{
	struct json_object *preface = NULL;
	struct xen_preface head = {0};
	struct err err = {0};
	int rc = xen_read_preface(fd, &preface, &err);
	off_t at = lseek(fd, 0, SEEK_CUR);

	if (rc) {
		if (preface || err.code != rc || !err.text[0])
			abort();
		return;
	}
	if (pread(fd, &head, sizeof(head), 0) != sizeof(head) || (size_t)at != sizeof(head) + head.length ||
	    (size_t)at > size || !json_object_is_type(preface, json_type_object))
		abort();
	json_object_put(preface);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		abort();
	parse(fd, size);
	close(fd);
	return 0;
}
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	(void)data, (void)size;
	return 0;
}
#endif
