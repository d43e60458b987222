/* SPDX-License-Identifier: MIT */
/* Which transport a target means, and the calls through its table. */
#include "tpm/transport.h"

#include <errno.h>
#include <string.h>

static const struct tpm_transport *const transports[] = {&tpm_device, &tpm_socket, &tpm_tcti};

#define COUNT (sizeof(transports) / sizeof(transports[0]))

static const struct tpm_transport *find(const char *target)
{
	for (size_t i = 0; i < COUNT; i++)
		for (const char *const *p = transports[i]->prefixes; *p; p++)
			if (!strncmp(target, *p, strlen(*p)))
				return transports[i];
	return NULL;
}

int tpm_target_check(const char *target, struct err *err)
{
	const struct tpm_transport *t = find(target);

	if (!t)
		return err_set(err, -EINVAL,
			       "%s: not a TPM: say /dev/tpm0, unix:PATH, tcp:HOST:PORT, "
			       "vsock:CID:PORT or tcti:CONF",
			       target);
	return t->check ? t->check(target, err) : 0;
}

bool tpm_target_is_exclusive(const char *target)
{
	const struct tpm_transport *t = find(target);

	return t && t->is_exclusive && t->is_exclusive(target);
}

int tpm_open(const char *target, int timeout_ms, struct tpm **tpm, struct err *err)
{
	int rc = tpm_target_check(target, err);

	*tpm = NULL;
	return rc ? rc : find(target)->open(target, timeout_ms, tpm, err);
}

void tpm_close(struct tpm *tpm)
{
	if (tpm)
		tpm->ops->close(tpm);
}

int tpm_send(struct tpm *tpm, const uint8_t *cmd, size_t n)
{
	return tpm->ops->send(tpm, cmd, n);
}

int tpm_receive(struct tpm *tpm, uint8_t *buf, int timeout_ms)
{
	return tpm->ops->receive(tpm, buf, timeout_ms);
}

bool tpm_out_of_step(struct tpm *tpm, bool look)
{
	return tpm->ops->out_of_step && tpm->ops->out_of_step(tpm, look);
}

bool tpm_abandon(struct tpm *tpm)
{
	return tpm->ops->abandon && tpm->ops->abandon(tpm);
}

bool tpm_survives(const struct tpm *tpm, int error)
{
	return tpm->ops->survives && tpm->ops->survives(error);
}
