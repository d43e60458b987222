/* SPDX-License-Identifier: MIT */
#include "card/card.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "card/drivers.h"

const struct card_driver *const card_drivers[] = {&card_soft, &card_null, &card_slow, &card_sdf, NULL};

const char *const card_right_names[8] = {"sign",   "verify", "encrypt", "decrypt",
					 "export", "wrap",   "unwrap",  "agree"};

static unsigned symmetric_rights(const struct card_request *rq)
{
	if (rq->op == CARD_OP_MAC || rq->op == CARD_OP_HMAC)
		return CARD_RIGHT_SIGN;
	return rq->flags & CARD_FLAG_DECRYPT ? CARD_RIGHT_DECRYPT : CARD_RIGHT_ENCRYPT;
}

unsigned card_rights_needed(const struct card_request *rq)
{
	if (rq->key_kind != CARD_KEY_INDEX)
		return 0;
	switch (rq->op) {
	case CARD_OP_PUBLIC:
		return CARD_RIGHT_EXPORT;
	case CARD_OP_KEY_MAKE:
		return CARD_RIGHT_WRAP;
	case CARD_OP_KEY_TAKE:
	case CARD_OP_KEY_EXCHANGE:
		return CARD_RIGHT_UNWRAP;
	case CARD_OP_AGREE:
		return CARD_RIGHT_AGREE;
	case CARD_OP_SIGN:
		return CARD_RIGHT_SIGN;
	case CARD_OP_VERIFY:
	case CARD_OP_HASH:
		return CARD_RIGHT_VERIFY;
	case CARD_OP_PK_ENCRYPT:
	case CARD_OP_RSA_PUBLIC:
		return CARD_RIGHT_ENCRYPT;
	case CARD_OP_PK_DECRYPT:
		return CARD_RIGHT_DECRYPT;
	case CARD_OP_RSA_PRIVATE: /* raw: it signs as well as it decrypts */
		return CARD_RIGHT_SIGN | CARD_RIGHT_DECRYPT;
	case CARD_OP_CIPHER:
	case CARD_OP_MAC:
	case CARD_OP_AEAD:
	case CARD_OP_HMAC:
		return symmetric_rights(rq);
	default:
		return 0;
	}
}

const struct card_driver *card_driver_of(const char *spec)
{
	size_t n = strcspn(spec, ":");

	for (const struct card_driver *const *d = card_drivers; *d; d++)
		if (strlen((*d)->name) == n && !strncmp((*d)->name, spec, n))
			return *d;
	return NULL;
}

int card_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	const struct card_driver *driver = card_driver_of(conf->spec);
	struct card_conf full = *conf;
	int rc;

	if (!driver)
		return err_set(err, -EINVAL, "open card %s: '%.64s' is no kind of card (soft, null, slow:RATE, sdf:LIB)",
			       conf->name, conf->spec);
	full.arg = strchrnul(conf->spec, ':');
	full.arg += *full.arg == ':';
	rc = driver->open(&full, out, err);
	if (rc)
		return rc;
	(*out)->driver = driver;
	snprintf((*out)->name, sizeof((*out)->name), "%s", conf->name);
	return 0;
}

void card_close(struct card *card)
{
	if (card)
		card->driver->close(card);
}
