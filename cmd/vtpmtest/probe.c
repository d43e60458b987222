/* SPDX-License-Identifier: MIT */
/* What answers at the other end: family, limits, algorithms, banks. */
#include "vtpmtest.h"

#include <errno.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

#define TPM12_BAD_ORDINAL 0x0a
#define TPM12_BAD_TAG 0x1e

static enum vt_reply ask(struct vt_worker *w, enum tpm_family family, enum tpm_op op,
			 uint32_t property, struct tpm_answer *a)
{
	struct tpm_request rq = {
		.family = family,
		.op = op,
		.alg = w->conf->alg,
		.pcr = w->conf->pcr,
		.property = property,
	};

	w->deadline_ns = units_now_ns() + w->conf->timeout_ns;
	return vt_call(w, &rq, a, true);
}

static int refuse(struct vt_worker *w, enum vt_reply reply)
{
	log_error("probe %s: %s", w->conf->target, w->why);
	return reply == VT_UNANSWERED && w->counts.timed_out ? EXIT_TIMED_OUT : EXIT_REFUSED;
}

/* A TPM that was not started up answers nothing but Startup. */
static int startup(struct vt_worker *w, enum tpm_family family)
{
	enum vt_reply reply;
	struct tpm_answer a;
	char code[64];

	if (!w->conf->startup)
		return 0;
	reply = ask(w, family, TPM_OP_STARTUP, 0, &a);
	if (reply == VT_ANSWERED ||
	    (reply == VT_REFUSED && tpm_rc_needs_startup(family, a.rc)))
		return 0;
	/* A started TPM says INITIALIZE (2.0) or INVALID_POSTINIT (1.2): that is fine, too. */
	log_error("start up %s: %s", w->conf->target,
		  reply == VT_REFUSED ? tpm_rc_text(family, a.rc, code, sizeof(code)) : w->why);
	return reply == VT_UNANSWERED ? EXIT_TIMED_OUT : EXIT_REFUSED;
}

static int not_started(struct vt_worker *w)
{
	log_error("probe %s: the TPM was not started up: add --startup", w->conf->target);
	return EXIT_REFUSED;
}

/* A 1.2 TPM knows neither the tag nor the ordinal of a 2.0 command; libtpms says the latter. */
static int detect(struct vt_worker *w, struct vt_config *conf)
{
	enum tpm_family asked = conf->family;
	struct tpm_answer a;
	enum vt_reply reply;

	conf->family = TPM_FAMILY_20;
	reply = ask(w, TPM_FAMILY_20, TPM_OP_PROPERTY, TPM20_PT_FAMILY, &a);
	if (reply == VT_REFUSED && (a.rc == TPM12_BAD_TAG || a.rc == TPM12_BAD_ORDINAL))
		conf->family = TPM_FAMILY_12;
	else if (reply == VT_REFUSED && !tpm_rc_needs_startup(TPM_FAMILY_20, a.rc))
		return refuse(w, reply);
	else if (reply != VT_ANSWERED && reply != VT_REFUSED)
		return refuse(w, reply);
	if (asked != TPM_FAMILY_ANY && asked != conf->family) {
		log_error("probe %s: the TPM is %s, not %s", conf->target,
			  conf->family == TPM_FAMILY_12 ? "1.2" : "2.0",
			  asked == TPM_FAMILY_12 ? "1.2" : "2.0");
		return EXIT_REFUSED;
	}
	return 0;
}

static int limits_20(struct vt_worker *w, struct vt_config *conf)
{
	struct tpm_answer a;
	enum vt_reply reply;

	reply = ask(w, TPM_FAMILY_20, TPM_OP_PROPERTY, TPM20_PT_INPUT_BUFFER, &a);
	if (reply == VT_REFUSED && tpm_rc_needs_startup(TPM_FAMILY_20, a.rc))
		return not_started(w);
	if (reply != VT_ANSWERED)
		return refuse(w, reply);
	conf->buffer_max = a.value < 64 ? TPM20_BUFFER_MIN : a.value;
	if (conf->buffer_max > TPM_BUF_MAX - 64) /* the headers need their place */
		conf->buffer_max = TPM_BUF_MAX - 64;
	reply = ask(w, TPM_FAMILY_20, TPM_OP_PROPERTY, TPM20_PT_MANUFACTURER, &a);
	if (reply == VT_ANSWERED)
		conf->manufacturer = a.value;
	reply = ask(w, TPM_FAMILY_20, TPM_OP_HAS_ALG, 0, &a);
	if (reply != VT_ANSWERED)
		return refuse(w, reply);
	if (!a.value) {
		log_error("probe %s: the TPM has no %s", conf->target, conf->alg->name);
		return EXIT_REFUSED;
	}
	return 0;
}

static int limits_12(struct vt_worker *w, struct vt_config *conf)
{
	struct tpm_answer a;
	enum vt_reply reply;

	if (strcmp(conf->alg->name, "sha1")) {
		log_error("probe %s: a 1.2 TPM has sha1 only, no %s", conf->target,
			  conf->alg->name);
		return EXIT_REFUSED;
	}
	reply = ask(w, TPM_FAMILY_12, TPM_OP_PROPERTY, TPM12_PROP_MANUFACTURER, &a);
	if (reply == VT_REFUSED && tpm_rc_needs_startup(TPM_FAMILY_12, a.rc))
		return not_started(w);
	if (reply != VT_ANSWERED)
		return refuse(w, reply);
	conf->manufacturer = a.value;
	/* SHA1Start tells; the thread that it opens ends with the next command. */
	reply = ask(w, TPM_FAMILY_12, TPM_OP_SEQ_START, 0, &a);
	if (reply != VT_ANSWERED)
		return refuse(w, reply);
	conf->buffer_max = a.max > TPM12_UPDATE_MAX || a.max < 64 ? TPM12_UPDATE_MAX : a.max;
	return 0;
}

int vt_probe(struct vt_worker *w, struct vt_config *conf)
{
	int rc;

	rc = detect(w, conf);
	if (!rc)
		rc = startup(w, conf->family);
	if (!rc)
		rc = conf->family == TPM_FAMILY_12 ? limits_12(w, conf) : limits_20(w, conf);
	w->counts = (struct vt_counts){0};
	return rc;
}
