/* SPDX-License-Identifier: MIT */
/* One row a transport; the contracts are those of tpm.h. */
#ifndef TPM_TRANSPORT_H
#define TPM_TRANSPORT_H

#include "tpm/tpm.h"

struct tpm_transport {
	const char *prefixes[4]; /* "unix:"; ends with NULL; taken off only for the TCTI */
	int (*check)(const char *target, struct err *err); /* NULL: anything goes */
	bool (*is_exclusive)(const char *target);	   /* NULL: never */
	int (*open)(const char *target, int timeout_ms, struct tpm **tpm, struct err *err);
	void (*close)(struct tpm *tpm);
	int (*send)(struct tpm *tpm, const uint8_t *cmd, size_t n);
	int (*receive)(struct tpm *tpm, uint8_t *buf, int timeout_ms);
	bool (*out_of_step)(struct tpm *tpm, bool look); /* NULL: it cannot be */
	bool (*abandon)(struct tpm *tpm);     /* NULL: never keeps */
	bool (*survives)(int error);	      /* NULL: nothing does */
};

/* The first member of every transport's own struct. */
struct tpm {
	const struct tpm_transport *ops;
};

extern const struct tpm_transport tpm_device, tpm_socket, tpm_tcti;

#endif
