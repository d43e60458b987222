/* SPDX-License-Identifier: MIT */
/* Any TCTI that tpm2-tss can load: "tcti:swtpm:path=X", "tcti:mssim:…", "tcti:device:…". */
#include "tpm/transport.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_tcti.h>
#include <tss2/tss2_tctildr.h>

#define PREFIX "tcti:"
#define HANDLES_MAX 8

struct tcti {
	struct tpm tpm;
	TSS2_TCTI_CONTEXT *context;
};

static int tcti_check(const char *target, struct err *err)
{
	if (!target[strlen(PREFIX)])
		return err_set(err, -EINVAL, "%s: a configuration is missing, as in tcti:swtpm:path=SOCKET",
			       target);
	return 0;
}

static int code_of(TSS2_RC rc)
{
	switch (rc & ~TSS2_RC_LAYER_MASK) {
	case TSS2_RC_SUCCESS:
		return 0;
	case TSS2_BASE_RC_TRY_AGAIN:
		return -EAGAIN;
	case TSS2_BASE_RC_BAD_VALUE:
	case TSS2_BASE_RC_NOT_SUPPORTED:
		return -EINVAL;
	case TSS2_BASE_RC_MALFORMED_RESPONSE:
		return -EPROTO;
	default:
		return -EIO;
	}
}

static int tcti_open(const char *target, int timeout_ms, struct tpm **tpm, struct err *err)
{
	const char *conf = target + strlen(PREFIX);
	struct tcti *t = calloc(1, sizeof(*t));
	TSS2_RC rc;

	(void)timeout_ms;
	if (!t)
		return err_sys(err, -ENOMEM, "open %s", target);
	rc = Tss2_TctiLdr_Initialize(conf, &t->context);
	if (rc) {
		free(t);
		return err_set(err, code_of(rc) ? code_of(rc) : -EIO,
			       "open %s: the TCTI does not come up (0x%x; TSS2_LOG=all+error tells more)",
			       target, rc);
	}
	t->tpm.ops = &tpm_tcti;
	*tpm = &t->tpm;
	return 0;
}

static void tcti_close(struct tpm *tpm)
{
	struct tcti *t = (struct tcti *)tpm;

	Tss2_TctiLdr_Finalize(&t->context);
	free(t);
}

static int tcti_send(struct tpm *tpm, const uint8_t *cmd, size_t n)
{
	return code_of(Tss2_Tcti_Transmit(((struct tcti *)tpm)->context, n, cmd));
}

/* Most TCTIs only wait for ever in receive; some tell what to poll first. */
static bool wait_ready(struct tcti *t, int timeout_ms)
{
	TSS2_TCTI_POLL_HANDLE handles[HANDLES_MAX];
	size_t n = HANDLES_MAX;

	if (Tss2_Tcti_GetPollHandles(t->context, handles, &n) || !n)
		return true;
	for (size_t i = 0; i < n; i++)
		handles[i].events = POLLIN;
	return poll(handles, (nfds_t)n, timeout_ms) > 0;
}

static int tcti_receive(struct tpm *tpm, uint8_t *buf, int timeout_ms)
{
	struct tcti *t = (struct tcti *)tpm;
	size_t n = TPM_BUF_MAX;
	int rc;

	if (!wait_ready(t, timeout_ms))
		return -EAGAIN;
	rc = code_of(Tss2_Tcti_Receive(t->context, &n, buf, TSS2_TCTI_TIMEOUT_BLOCK));
	return rc ? rc : (int)n;
}

const struct tpm_transport tpm_tcti = {
	.prefixes = {PREFIX},
	.check = tcti_check,
	.open = tcti_open,
	.close = tcti_close,
	.send = tcti_send,
	.receive = tcti_receive,
};
