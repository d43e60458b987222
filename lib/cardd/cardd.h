/* SPDX-License-Identifier: MIT */
/*
 * The daemon of `cardshare serve`: what it is told (conf), and its life. One thread serves all VMs
 * (the paper's one pseudo-VM for many, its section 3.3).
 */
#ifndef CARDD_CARDD_H
#define CARDD_CARDD_H

#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"
#include "card/card.h"

#define CARDD_CARDS_MAX 16
#define CARDD_INDEX_MAX 255 /* of a key, as a VM counts them, from 1 */
#define CARDD_PATH_MAX 108

#define CARDD_RUN_DIR "/run/util-vm/cardshare"
#define CARDD_VSOCK_PORT 7073u

struct cardd_key {
	char name[CARD_NAME_MAX]; /* as the card calls it */
	uint32_t rights;	  /* 0: this VM may not use it */
};

struct cardd_card_conf {
	char name[CARD_NAME_MAX], spec[CARDD_PATH_MAX + 16];
	char store[CARDD_PATH_MAX], store_key[CARDD_PATH_MAX];
	uint64_t timeout_us;
	uint32_t workers; /* processes that it is opened in, each a card by itself; 0: in the daemon */
	struct cardd_card_conf *next;
};

/* What a VM may besides using its keys. */
enum cardd_allow {
	CARDD_ALLOW_RANDOM = 1,
	CARDD_ALLOW_HASH = 2,
	CARDD_ALLOW_EXTERNAL = 4, /* operations with keys that it brings itself */
	CARDD_ALLOW_PAIR = 8,	  /* key pairs that leave the card */
	CARDD_ALLOW_PLAIN = 16,	  /* session keys in clear (debug calls of the 2023 edition) */
	CARDD_ALLOW_FILES = 32,
	CARDD_ALLOW_ALL = 63,
};

struct cardd_vm_conf {
	char name[CARD_NAME_MAX];
	char cards[CARDD_CARDS_MAX][CARD_NAME_MAX]; /* balanced over these */
	uint32_t card_count;
	/* ways in; "" or 0: not this way */
	char ivshmem[CARDD_PATH_MAX], unix_path[CARDD_PATH_MAX], hybrid[CARDD_PATH_MAX];
	uint32_t cid;
	uint32_t weight;
	uint64_t ops_rate, byte_rate; /* a second; 0: no limit */
	uint32_t links_max, sessions_max, objects_max, depth;
	uint64_t memory;   /* of an ivshmem region, a power of two */
	uint32_t queues;
	bool migratable;   /* tells the VM that it is peer 0, so that QEMU's master=on can move it */
	uint32_t allow;	   /* enum cardd_allow */
	struct cardd_key *keys[CARD_CLASSES]; /* CARDD_INDEX_MAX + 1 each, by index; NULL: none */
	struct cardd_vm_conf *next;
};

struct cardd_conf {
	char control[CARDD_PATH_MAX]; /* socket of `stat` */
	char audit[CARDD_PATH_MAX];   /* file of key uses; "": none */
	uint32_t vsock_port;
	uint64_t spin_us;
	bool spin_auto; /* measured at the start */
	uint64_t shared_region; /* bytes of one region for all VMs (the paper's layout); 0: each its own */
	int socket_mode; /* of unix sockets, 0600 */
	struct cardd_card_conf *cards;
	struct cardd_vm_conf *vms;
};

/* Defaults; read an INI text over them. -EINVAL with @err "read NAME: line …: why". */
void cardd_conf_init(struct cardd_conf *c);
int cardd_conf_parse(struct cardd_conf *c, const char *name, const char *text, struct err *err);
int cardd_conf_read(struct cardd_conf *c, const char *path, struct err *err);
/* Whether it makes sense as a whole; completes what was left out (a VM without `card` has all). */
int cardd_conf_check(struct cardd_conf *c, const char *name, struct err *err);
void cardd_conf_free(struct cardd_conf *c);
struct cardd_vm_conf *cardd_conf_vm(struct cardd_conf *c, const char *name, bool make);
struct cardd_card_conf *cardd_conf_card(struct cardd_conf *c, const char *name, bool make);
/* How often it is opened: once, or once a worker. */
uint32_t cardd_conf_opened(const struct cardd_card_conf *card);

struct cardd;

/* Open cards and addresses. @conf is taken over. */
int cardd_new(struct cardd_conf *conf, struct cardd **out, struct err *err);

/* Serve until cardd_stop() (async-signal-safe, or another thread's). 0, or -errno. */
int cardd_run(struct cardd *d, struct err *err);
void cardd_stop(struct cardd *d);

/* A new configuration, at the loop's next turn: what @load returns 0 with is taken over; VMs that stay
 * the same keep their links. Async-signal-safe. */
typedef int (*cardd_load_fn)(void *ctx, struct cardd_conf *conf, struct err *err);
void cardd_on_reload(struct cardd *d, cardd_load_fn load, void *ctx);
void cardd_reload(struct cardd *d);

/* A snapshot, owned by the caller. */
struct json_object *cardd_stat(struct cardd *d);

/* What the daemon is about to wait for, in words: "vm web: ivshmem /run/…", one each call; NULL: the end. */
const char *cardd_way(struct cardd *d, unsigned i);

void cardd_free(struct cardd *d); /* NULL is fine */

#endif
