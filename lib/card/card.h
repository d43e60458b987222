/* SPDX-License-Identifier: MIT */
/*
 * Cards: one file and one row of card_drivers[] each. A driver computes; who may ask for what, whose
 * turn it is, handles, sessions and accounting are the daemon's. Single-threaded: the daemon's
 * loop calls a card from one thread.
 */
#ifndef CARD_CARD_H
#define CARD_CARD_H

#include <stdbool.h>

#include "base/err.h"
#include "card/protocol.h"

struct card;	    /* an open card */
struct card_object; /* what a card made for a session: a key, a stream, an agreement */

enum card_object_type { CARD_OBJ_KEY = 1, CARD_OBJ_STREAM, CARD_OBJ_AGREEMENT };

/* The rights over a key that lives in the card; the config's words in card_right_names[]. */
enum card_right {
	CARD_RIGHT_SIGN = 1,	/* private, sign */
	CARD_RIGHT_VERIFY = 2,	/* public, verify and Z */
	CARD_RIGHT_ENCRYPT = 4, /* public, encrypt */
	CARD_RIGHT_DECRYPT = 8, /* private, decrypt */
	CARD_RIGHT_EXPORT = 16, /* read the public half */
	CARD_RIGHT_WRAP = 32,	/* KEY_MAKE for this key */
	CARD_RIGHT_UNWRAP = 64, /* KEY_TAKE, KEY_EXCHANGE with this key */
	CARD_RIGHT_AGREE = 128, /* AGREE with this key */
	CARD_RIGHTS_ALL = 255,
};
extern const char *const card_right_names[8]; /* by bit */

/* The rights that a request needs over the key at an index; 0: the op uses none. */
unsigned card_rights_needed(const struct card_request *rq);

/*
 * One call. @rq and @args are the daemon's private, validated copies. @in may be the guest's memory where
 * card_op_info(op)->streams says so: then a byte may change after it was read, and is read once. @out may be the
 * guest's memory, too: it is written, and what was written is never read back and trusted.
 */
struct card_call {
	const struct card_request *rq;
	const void *args;
	const uint8_t *in;
	uint32_t in_len;
	const char *vm;	      /* whose files */
	const char *key_name; /* key_kind INDEX: what the card calls the key, else NULL */
	uint32_t key_rights;  /* enum card_right, of this VM over it */
	bool right_got;	      /* RIGHT_GET succeeded in this session, or the config spares it */
	struct card_object *key;    /* key_kind OBJECT */
	struct card_object *object; /* stream (not BEGIN), agreement, what to DROP (the card frees it) */
	/* the answer */
	uint8_t *out;
	uint32_t out_cap, out_len;
	void *out_args; /* CARD_ARGS_MAX bytes, zeroed */
	uint32_t out_args_len;
	struct card_object *made; /* with made_type: the daemon gives it a handle */
	enum card_object_type made_type;
	void *user; /* the daemon's, for asynchronous cards */
};

struct card_conf {
	const char *name;   /* [card NAME], for words */
	const char *spec;   /* "DRIVER" or "DRIVER:ARG" */
	const char *arg;    /* ARG, or ""; card_open sets it */
	const char *store;  /* folder of its keys, NULL: none */
	const char *store_key; /* file that its encryption key is in, NULL: store/.key, made when missing */
	uint64_t timeout_us; /* of a call: longer is a dead card */
};

struct card_info {
	struct sdf_device_info sdf;
	uint64_t ops;	       /* bit enum card_op */
	char engine[64];       /* "OpenSSL 3.0.22, libgcrypt 1.10.1" */
	uint64_t rate;	       /* bytes/s a slow card was told, 0: as fast as it can */
};

#define CARD_PENDING UINT32_MAX /* of run: the answer comes by reap */
#define CARD_NOT_BEGUN (UINT32_MAX - 1) /* of run or reap: the card is away, and saw nothing of this call */
#define CARD_LOST (UINT32_MAX - 2) /* of reap: the card went away in the middle of this call */

struct card_driver {
	const char *name; /* "soft", before the ':' of a spec */
	const char *help; /* one line */
	bool apart;	  /* foreign code: a daemon has it in a worker process only (card/worker.h) */
	int (*open)(const struct card_conf *conf, struct card **out, struct err *err);
	void (*close)(struct card *card);
	void (*info)(struct card *card, struct card_info *info);
	/* enum sdr, or CARD_PENDING: then @call stays valid until reap gave it back. */
	uint32_t (*run)(struct card *card, struct card_call *call);
	void (*release)(struct card *card, enum card_object_type type, struct card_object *o);
	/* NULL for cards that never answer CARD_PENDING: */
	int (*fd)(struct card *card); /* readable when reap has something */
	struct card_call *(*reap)(struct card *card, uint32_t *status);
	unsigned (*room)(struct card *card); /* calls that it would take now */
	int (*health)(struct card *card);    /* 0; -EIO: gone, fail over */
};

struct card {
	const struct card_driver *driver;
	char name[CARD_NAME_MAX];
};

extern const struct card_driver *const card_drivers[]; /* NULL-terminated */

/* By conf->spec: "soft", "null", "slow:20M", "sdf:/path/lib.so"; in this process. -EINVAL or the driver's, with @err. */
int card_open(const struct card_conf *conf, struct card **out, struct err *err);
void card_close(struct card *card); /* NULL is fine */

/* The driver of a spec, NULL: there is none. */
const struct card_driver *card_driver_of(const char *spec);

#endif
