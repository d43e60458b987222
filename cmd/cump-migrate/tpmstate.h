/* SPDX-License-Identifier: MIT */
/* The state files of a swtpm: how large, and how they are destroyed. */
#ifndef CUMP_TPMSTATE_H
#define CUMP_TPMSTATE_H

#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"

uint64_t tpmstate_bytes(const char *dir); /* of the TPM's files in @dir */

/* SHA-256 of the permanent state (tpm2-00.permall or tpm-00.permall) as hex. -ENODATA: none. */
int tpmstate_digest(const char *dir, char hex[65]);

/*
 * Overwrite with zeros, sync and unlink every TPM state file in @dir (tpm-00.*, tpm2-00.*).
 * Appends {file, bytes, sha256} of what each held to @files (array). On copy-on-write and
 * journalling file systems the overwriting does not reach older copies of the blocks.
 */
int tpmstate_destroy(const char *dir, struct json_object *files, struct err *err);

#endif
