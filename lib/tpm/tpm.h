/* SPDX-License-Identifier: MIT */
/*
 * TPMs, 1.2 and 2.0: commands and answers as bytes (pure functions, hostile-safe), and
 * the ways to carry them: a device node, a socket that speaks raw TPM commands, a TCTI.
 */
#ifndef TPM_TPM_H
#define TPM_TPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TPM_BUF_MAX 4096    /* of a command and of a response, both families */
#define TPM_DIGEST_MAX 64
#define TPM_HANDLES_MAX 8
#define TPM12_UPDATE_MAX 4032 /* what SHA1Start answers at most; 4096 is refused */
#define TPM20_BUFFER_MIN 1024 /* TPM_PT_INPUT_BUFFER of every 2.0 TPM is at least this */

enum tpm_family { TPM_FAMILY_ANY, TPM_FAMILY_12, TPM_FAMILY_20 };

/* A hash algorithm: TCG's id, OpenSSL's name. */
struct tpm_alg {
	const char *name;
	uint16_t id;
	uint16_t size;
};

/* By name ("sha1", "sha256", "sha384", "sha512", "sm3_256") or by position; NULL: none. */
const struct tpm_alg *tpm_alg_find(const char *name);
const struct tpm_alg *tpm_alg_at(size_t i);

enum tpm_op {
	TPM_OP_STARTUP,	     /* state: clear */
	TPM_OP_PROPERTY,     /* of property → value (2.0 TPM_PT_…, 1.2 TPM_CAP_PROP_…) */
	TPM_OP_HAS_ALG,	     /* 2.0: of alg → value 1 or 0 */
	TPM_OP_HASH,	     /* 2.0: of alg, data → digest */
	TPM_OP_SEQ_START,    /* of alg → handle (2.0), max (1.2) */
	TPM_OP_SEQ_UPDATE,   /* of handle, data */
	TPM_OP_SEQ_COMPLETE, /* of handle, data → digest */
	TPM_OP_FLUSH,	     /* 2.0: of handle */
	TPM_OP_HANDLES,	     /* 2.0: transient objects → handles, count */
	TPM_OP_PCR_EXTEND,   /* of alg, pcr, data (a digest) → digest (1.2 only) */
	TPM_OP_PCR_READ,     /* of alg, pcr → digest; digest_size 0: no such bank */
	TPM_OP_COUNT,
};

#define TPM20_PT_FAMILY 0x100u
#define TPM20_PT_MANUFACTURER 0x105u
#define TPM20_PT_FIRMWARE 0x10bu
#define TPM20_PT_INPUT_BUFFER 0x10du
#define TPM12_PROP_MANUFACTURER 0x103u

struct tpm_request {
	enum tpm_family family;
	enum tpm_op op;
	const struct tpm_alg *alg;
	uint32_t handle, pcr, property;
	const void *data;
	size_t size;
};

struct tpm_answer {
	uint32_t rc;	 /* the TPM's own code; 0: success */
	uint32_t handle; /* TPM_OP_SEQ_START, 2.0 */
	uint32_t max;	 /* TPM_OP_SEQ_START, 1.2: bytes an update may carry */
	uint32_t value;	 /* TPM_OP_PROPERTY, TPM_OP_HAS_ALG */
	uint8_t digest[TPM_DIGEST_MAX];
	size_t digest_size;
	uint32_t handles[TPM_HANDLES_MAX];
	uint32_t count;
};

/* The command's bytes into @buf (TPM_BUF_MAX); its length, or -EINVAL: too big, no such command. */
int tpm_build(const struct tpm_request *rq, uint8_t *buf);

/*
 * The answer out of @n bytes that came back. 0; -EREMOTEIO: the TPM refused, @a->rc says
 * why; -EPROTO: not an answer to @rq, nothing in @a is to be used.
 */
int tpm_parse(const struct tpm_request *rq, const uint8_t *rsp, size_t n, struct tpm_answer *a);

/* What the response's header says of its length; 0 if fewer than 10 bytes are there. */
size_t tpm_response_size(const uint8_t *rsp, size_t n);

/* What a return code asks for. */
bool tpm_rc_is_transient(enum tpm_family family, uint32_t rc);   /* send it again */
bool tpm_rc_needs_startup(enum tpm_family family, uint32_t rc);
bool tpm_rc_is_no_sequence(enum tpm_family family, uint32_t rc); /* handle or thread gone */

/* "0x922 TPM_RC_RETRY" into @buf; returns @buf. */
const char *tpm_rc_text(enum tpm_family family, uint32_t rc, char *buf, size_t size);

/*
 * Transports. TARGET: "/dev/tpm0" (any path of a device node), "unix:PATH",
 * "tcp:HOST:PORT", "vsock:CID:PORT", "tcti:CONF" (Tss2_TctiLdr's configuration string).
 */
struct tpm;

/* -EINVAL with @err: not a target. */
int tpm_target_check(const char *target, struct err *err);

/* Whether one user has all of it: a second open would fail (/dev/tpm0). */
bool tpm_target_is_exclusive(const char *target);

/* -errno with @err. */
int tpm_open(const char *target, int timeout_ms, struct tpm **tpm, struct err *err);
void tpm_close(struct tpm *tpm); /* NULL is fine */

/* Give the command away. -errno: it is not known to have been executed. */
int tpm_send(struct tpm *tpm, const uint8_t *cmd, size_t n);

/*
 * One whole response into @buf (TPM_BUF_MAX) → its length; -EAGAIN: not yet, ask again;
 * -errno: it will not come. A TCTI that cannot poll waits as long as it takes.
 */
int tpm_receive(struct tpm *tpm, uint8_t *buf, int timeout_ms);

/*
 * Whether bytes came that nobody asked for: the far end is out of step. Without @look only
 * those that came with the last response; else those that wait, too (a system call).
 */
bool tpm_out_of_step(struct tpm *tpm, bool look);

/*
 * The response of the last command will not be waited for. true: the transport can go on
 * (a device is waited for before its next command); false: close it and open it again.
 */
bool tpm_abandon(struct tpm *tpm);

/* Whether a transport that failed with @error is worth keeping (-ETIME of a device is). */
bool tpm_survives(const struct tpm *tpm, int error);

#endif
