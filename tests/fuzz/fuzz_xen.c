/* SPDX-License-Identifier: MIT */
/*
 * What stands before a Xen domain's stream, from the other host: an object, or refused; and, behind it here, what is
 * late for libxl: only pages of a batch, to where they belong. Nothing is read beyond either.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../cmd/cump-migrate/xen_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef HAVE_XEN
#define PAGE 4096

static struct {
	uint8_t page[CUMP_BATCH][PAGE];
	bool mapped;
} memory;

static int map(void *ctx, const uint64_t *gfn, size_t n, void **to, struct err *err)
{
	(void)ctx;
	if (memory.mapped || !n || n > CUMP_BATCH)
		abort();
	for (size_t i = 0; i < n; i++) {
		if (gfn[i] >> 52)
			abort();
		if (gfn[i] == 13)
			return err_set(err, -ENOMEM, "no room");
		to[i] = gfn[i] % 7 ? memory.page[i] : NULL;
	}
	memory.mapped = true;
	return 0;
}

static void unmap(void *ctx)
{
	(void)ctx;
	memory.mapped = false;
}

static int tsc(void *ctx, const struct xen_tsc *t, struct err *err)
{
	(void)ctx;
	return t->mode > 3 ? err_set(err, -EIO, "no such mode") : 0;
}

static int context(void *ctx, uint8_t *data, uint32_t n, struct err *err)
{
	(void)ctx, (void)err;
	if (!n)
		abort();
	data[n - 1] ^= 1;
	return 0;
}

static void parse_late(int fd, size_t size)
{
	static const struct xen_late_ops ops = {map, unmap, tsc, context};
	off_t before = lseek(fd, 0, SEEK_CUR), after;
	uint64_t bytes = 0;
	struct err err = {0};
	int rc = xen_read_late(fd, &ops, NULL, &bytes, &err);

	after = lseek(fd, 0, SEEK_CUR);
	if (memory.mapped || (size_t)after > size || (rc && (err.code != rc || !err.text[0])) ||
	    (!rc && (uint64_t)(after - before) != bytes))
		abort();
}

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
	parse_late(fd, size);
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
