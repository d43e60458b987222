/* SPDX-License-Identifier: MIT */
/* cardshare.conf(5): an INI text into struct cardd_conf. */
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"
#include "cardd/cardd.h"

#define TEXT_MAX (1024 * 1024)
#define LINE_MAX_CHARS 190
#define RATE_MAX UINT64_C(8000000000)

struct parse {
	struct cardd_conf *c;
	const char *name;
	struct err *err;
	int rc;
};

struct field {
	const char *key, *what; /* what: for words */
	int (*set)(void *to, const char *value);
	size_t at;
};

static int set_path(void *to, const char *v)
{
	if (v[0] != '/' || strlen(v) >= CARDD_PATH_MAX)
		return -EINVAL;
	strcpy(to, v); /* NOLINT: measured above */
	return 0;
}

static int number(const char *v, uint64_t min, uint64_t max, uint64_t *n)
{
	char *end;

	errno = 0;
	*n = strtoull(v, &end, 10);
	return errno || end == v || *end || *v == '-' || *n < min || *n > max ? -EINVAL : 0;
}

static int set_u32(void *to, const char *v, uint32_t min, uint32_t max)
{
	uint64_t n;

	if (number(v, min, max, &n))
		return -EINVAL;
	*(uint32_t *)to = (uint32_t)n;
	return 0;
}

static int set_weight(void *to, const char *v)
{
	return set_u32(to, v, 1, 10000);
}

static int set_limit(void *to, const char *v)
{
	return set_u32(to, v, 1, 60000);
}

static int set_depth(void *to, const char *v)
{
	return set_u32(to, v, 1, 1024);
}

static int set_queues(void *to, const char *v)
{
	return set_u32(to, v, 1, 64);
}

static int set_cid(void *to, const char *v)
{
	return set_u32(to, v, 3, UINT32_MAX - 1);
}

static int set_workers(void *to, const char *v)
{
	return set_u32(to, v, 0, CARDD_CARDS_MAX);
}

static int set_port(void *to, const char *v)
{
	return set_u32(to, v, 1, UINT32_MAX - 1);
}

static int set_mode(void *to, const char *v)
{
	char *end;
	unsigned long mode = strtoul(v, &end, 8);

	if (end == v || *end || mode > 0777)
		return -EINVAL;
	*(int *)to = (int)mode;
	return 0;
}

static int set_memory(void *to, const char *v)
{
	uint64_t n;

	if (units_size(v, &n) || n < 65536 || n > (UINT64_C(1) << 30) || (n & (n - 1)))
		return -EINVAL;
	*(uint64_t *)to = n;
	return 0;
}

static int set_bytes(void *to, const char *v)
{
	uint64_t n;

	if (units_size(v, &n) || n > RATE_MAX)
		return -EINVAL;
	*(uint64_t *)to = n;
	return 0;
}

static int set_rate(void *to, const char *v)
{
	return number(v, 0, RATE_MAX, to);
}

static int set_time(void *to, const char *v)
{
	return units_duration(v, to);
}

static int set_bool(void *to, const char *v)
{
	bool yes = !strcmp(v, "yes");

	if (!yes && strcmp(v, "no") != 0)
		return -EINVAL;
	*(bool *)to = yes;
	return 0;
}

static int set_spec(void *to, const char *v)
{
	if (!*v || strlen(v) >= sizeof(((struct cardd_card_conf *)0)->spec))
		return -EINVAL;
	strcpy(to, v); /* NOLINT: measured above */
	return 0;
}

static int set_allow(void *to, const char *v)
{
	static const char *const words[] = {"random", "hash", "external", "pair", "plain", "files"};
	uint32_t allow = 0;

	while (*v) {
		size_t n = strcspn(v, " \t"), i;

		for (i = 0; i < 6 && (strlen(words[i]) != n || strncmp(words[i], v, n) != 0); i++)
			;
		if (i < 6)
			allow |= 1u << i;
		else if (n == 3 && !strncmp(v, "all", n))
			allow = CARDD_ALLOW_ALL;
		else if (n != 4 || strncmp(v, "none", n) != 0)
			return -EINVAL;
		v += n + strspn(v + n, " \t");
	}
	*(uint32_t *)to = allow;
	return 0;
}

static bool good_name(const char *v, size_t n)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return n && n < CARD_NAME_MAX && strspn(v, good) >= n && v[0] != '.' && v[0] != '-';
}

static int set_cards(void *to, const char *v)
{
	struct cardd_vm_conf *vm = to;

	vm->card_count = 0;
	while (*v) {
		size_t n = strcspn(v, " \t");

		if (vm->card_count == CARDD_CARDS_MAX || !good_name(v, n))
			return -EINVAL;
		memset(vm->cards[vm->card_count], 0, CARD_NAME_MAX);
		memcpy(vm->cards[vm->card_count++], v, n);
		v += n + strspn(v + n, " \t");
	}
	return vm->card_count ? 0 : -EINVAL;
}

#define AT(type, member) offsetof(struct type, member)

static const struct field daemon_fields[] = {
	{"control", "an absolute path of at most 107 characters", set_path, AT(cardd_conf, control)},
	{"audit", "an absolute path of at most 107 characters", set_path, AT(cardd_conf, audit)},
	{"vsock-port", "a port", set_port, AT(cardd_conf, vsock_port)},
	{"socket-mode", "an octal mode", set_mode, AT(cardd_conf, socket_mode)},
	{"shared-region", "a power of two from 64K to 1G", set_memory, AT(cardd_conf, shared_region)},
	{0},
};

static const struct field card_fields[] = {
	{"driver", "a kind of card (soft, null, slow:RATE, sdf:LIB)", set_spec, AT(cardd_card_conf, spec)},
	{"store", "an absolute path of at most 107 characters", set_path, AT(cardd_card_conf, store)},
	{"store-key", "an absolute path of at most 107 characters", set_path, AT(cardd_card_conf, store_key)},
	{"timeout", "a duration", set_time, AT(cardd_card_conf, timeout_us)},
	{"workers", "0 to 16", set_workers, AT(cardd_card_conf, workers)},
	{0},
};

static const struct field vm_fields[] = {
	{"card", "names of cards", set_cards, 0},
	{"ivshmem", "an absolute path of at most 107 characters", set_path, AT(cardd_vm_conf, ivshmem)},
	{"unix", "an absolute path of at most 107 characters", set_path, AT(cardd_vm_conf, unix_path)},
	{"hybrid", "an absolute path of at most 107 characters", set_path, AT(cardd_vm_conf, hybrid)},
	{"vsock", "a CID (3 or more)", set_cid, AT(cardd_vm_conf, cid)},
	{"weight", "1 to 10000", set_weight, AT(cardd_vm_conf, weight)},
	{"ops-rate", "requests a second", set_rate, AT(cardd_vm_conf, ops_rate)},
	{"byte-rate", "bytes a second", set_bytes, AT(cardd_vm_conf, byte_rate)},
	{"links", "1 to 60000", set_limit, AT(cardd_vm_conf, links_max)},
	{"sessions", "1 to 60000", set_limit, AT(cardd_vm_conf, sessions_max)},
	{"objects", "1 to 60000", set_limit, AT(cardd_vm_conf, objects_max)},
	{"depth", "1 to 1024", set_depth, AT(cardd_vm_conf, depth)},
	{"memory", "a power of two from 64K to 1G", set_memory, AT(cardd_vm_conf, memory)},
	{"queues", "1 to 64", set_queues, AT(cardd_vm_conf, queues)},
	{"migratable", "yes or no", set_bool, AT(cardd_vm_conf, migratable)},
	{"allow", "words of: random hash external pair plain files all none", set_allow,
	 AT(cardd_vm_conf, allow)},
	{0},
};

static int set_field(struct parse *p, const char *section, const struct field *f, void *to,
		     const char *key, const char *value)
{
	for (; f->key; f++)
		if (!strcmp(f->key, key)) {
			if (!f->set((char *)to + f->at, value))
				return 0;
			return err_set(p->err, -EINVAL, "read %s: [%s] %s: '%.64s' is not %s", p->name,
				       section, key, value, f->what);
		}
	return err_set(p->err, -EINVAL, "read %s: [%s] %s: no such key", p->name, section, key);
}

static int key_rights(const char *v, uint32_t *rights)
{
	while (*v) {
		size_t n = strcspn(v, " \t"), i;

		for (i = 0; i < 8; i++)
			if (strlen(card_right_names[i]) == n && !strncmp(card_right_names[i], v, n))
				break;
		if (i < 8)
			*rights |= 1u << i;
		else if (n == 3 && !strncmp(v, "all", n))
			*rights = CARD_RIGHTS_ALL;
		else
			return -EINVAL;
		v += n + strspn(v + n, " \t");
	}
	return *rights ? 0 : -EINVAL;
}

/* "ecc.1 = NAME RIGHT...": 1 if it is such a key, 0 if not. */
static int set_key(struct parse *p, struct cardd_vm_conf *vm, const char *key, const char *value)
{
	static const char *const classes[CARD_CLASSES] = {"ecc.", "rsa.", "kek."};
	struct cardd_key k = {0};
	unsigned class;
	uint64_t index;
	size_t n;

	for (class = 0; class < CARD_CLASSES && strncmp(key, classes[class], 4) != 0; class++)
		;
	if (class == CARD_CLASSES)
		return 0;
	n = strcspn(value, " \t");
	if (number(key + 4, 1, CARDD_INDEX_MAX, &index))
		return err_set(p->err, -EINVAL, "read %s: [vm %s] %s: an index is 1 to %d", p->name,
			       vm->name, key, CARDD_INDEX_MAX);
	if (!good_name(value, n) || key_rights(value + n + strspn(value + n, " \t"), &k.rights))
		return err_set(p->err, -EINVAL, "read %s: [vm %s] %s: not 'NAME RIGHT...' (sign verify "
			       "encrypt decrypt export wrap unwrap agree all)", p->name, vm->name, key);
	memcpy(k.name, value, n);
	if (!vm->keys[class])
		vm->keys[class] = calloc(CARDD_INDEX_MAX + 1, sizeof(k));
	if (!vm->keys[class])
		return -ENOMEM;
	vm->keys[class][index] = k;
	return 1;
}

struct cardd_vm_conf *cardd_conf_vm(struct cardd_conf *c, const char *name, bool make)
{
	struct cardd_vm_conf **at = &c->vms;

	for (; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, name))
			return *at;
	if (!make || !good_name(name, strlen(name)))
		return NULL;
	*at = calloc(1, sizeof(**at));
	if (!*at)
		return NULL;
	**at = (struct cardd_vm_conf){.weight = 100, .links_max = 64, .sessions_max = 256,
				      .objects_max = 4096, .depth = 64, .memory = 4 << 20, .queues = 4,
				      .allow = CARDD_ALLOW_RANDOM | CARDD_ALLOW_HASH |
					       CARDD_ALLOW_EXTERNAL | CARDD_ALLOW_PAIR};
	snprintf((*at)->name, sizeof((*at)->name), "%s", name);
	return *at;
}

struct cardd_card_conf *cardd_conf_card(struct cardd_conf *c, const char *name, bool make)
{
	struct cardd_card_conf **at = &c->cards;

	for (; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, name))
			return *at;
	if (!make || !good_name(name, strlen(name)))
		return NULL;
	*at = calloc(1, sizeof(**at));
	if (!*at)
		return NULL;
	(*at)->timeout_us = 5000000;
	snprintf((*at)->name, sizeof((*at)->name), "%s", name);
	return *at;
}

static int on_daemon(struct parse *p, const char *key, const char *value)
{
	if (!strcmp(key, "spin")) {
		p->c->spin_auto = !strcmp(value, "auto");
		if (p->c->spin_auto || !units_duration(value, &p->c->spin_us))
			return 0;
		return err_set(p->err, -EINVAL, "read %s: [daemon] spin: '%.64s' is neither a duration nor auto",
			       p->name, value);
	}
	return set_field(p, "daemon", daemon_fields, p->c, key, value);
}

static int on_vm(struct parse *p, const char *section, const char *key, const char *value)
{
	struct cardd_vm_conf *vm = cardd_conf_vm(p->c, section + 3, true);
	int rc;

	if (!vm)
		return err_set(p->err, -EINVAL, "read %s: [%.64s]: not a name (letters, digits, . _ -; at most %d)",
			       p->name, section, CARD_NAME_MAX - 1);
	rc = set_key(p, vm, key, value);
	if (rc)
		return rc < 0 ? rc : 0;
	return set_field(p, section, vm_fields, vm, key, value);
}

/* libinih's callback: 1 goes on, 0 is an error. */
static int on_entry(void *ctx, const char *section, const char *key, const char *value)
{
	struct parse *p = ctx;

	if (p->rc)
		return 0;
	if (!strcmp(section, "daemon")) {
		p->rc = on_daemon(p, key, value);
	} else if (!strncmp(section, "card ", 5)) {
		struct cardd_card_conf *card = cardd_conf_card(p->c, section + 5, true);

		p->rc = card ? set_field(p, section, card_fields, card, key, value)
			     : err_set(p->err, -EINVAL, "read %s: [%.64s]: not a name", p->name, section);
	} else if (!strncmp(section, "vm ", 3)) {
		p->rc = on_vm(p, section, key, value);
	} else {
		p->rc = err_set(p->err, -EINVAL, "read %s: [%.64s]: no such section (daemon, card NAME, vm NAME)",
				p->name, section);
	}
	return p->rc == 0;
}

void cardd_conf_init(struct cardd_conf *c)
{
	*c = (struct cardd_conf){.control = CARDD_RUN_DIR "/control", .vsock_port = CARDD_VSOCK_PORT,
				 .spin_auto = true, .socket_mode = 0600};
}

/* libinih (as Debian builds it) cuts lines of 200 characters in two: never let it. */
static int check_lines(const char *name, const char *text, struct err *err)
{
	for (unsigned line = 1; *text; line++) {
		size_t n = strcspn(text, "\n");

		if (n > LINE_MAX_CHARS)
			return err_set(err, -EINVAL, "read %s: line %u has more than %d characters", name,
				       line, LINE_MAX_CHARS);
		text += n + (text[n] == '\n');
	}
	return 0;
}

int cardd_conf_parse(struct cardd_conf *c, const char *name, const char *text, struct err *err)
{
	struct parse p = {c, name, err, 0};
	int rc = check_lines(name, text, err);

	if (rc)
		return rc;
	rc = ini_parse_string(text, on_entry, &p);
	if (p.rc)
		return p.rc;
	return rc ? err_set(err, -EINVAL, "read %s: line %d is not 'key = value' or '[section]'", name, rc)
		  : 0;
}

int cardd_conf_read(struct cardd_conf *c, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;
	char *text = NULL;

	if (fd < 0 || fstat(fd, &st)) {
		rc = err_sys(err, -errno, "read %s", path);
	} else if (!S_ISREG(st.st_mode) || st.st_size > TEXT_MAX) {
		rc = err_set(err, -EINVAL, "read %s: not a configuration", path);
	} else if ((st.st_mode & 022) || (st.st_uid && st.st_uid != geteuid())) {
		rc = err_set(err, -EACCES, "read %s: others may write it, and it says who may use which key "
			     "(chmod go-w, chown)", path);
	} else {
		text = calloc(1, (size_t)st.st_size + 1);
		if (!text || read(fd, text, (size_t)st.st_size) != st.st_size)
			rc = err_sys(err, -EIO, "read %s", path);
		else
			rc = cardd_conf_parse(c, path, text, err);
	}
	free(text);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int check_vm(struct cardd_conf *c, struct cardd_vm_conf *vm, const char *name, struct err *err)
{
	bool any = !vm->card_count;

	for (const struct cardd_card_conf *card = c->cards; card && any; card = card->next)
		memcpy(vm->cards[vm->card_count++], card->name, CARD_NAME_MAX);
	for (uint32_t i = 0; i < vm->card_count; i++)
		if (!cardd_conf_card(c, vm->cards[i], false))
			return err_set(err, -EINVAL, "%s: [vm %s] card: there is no [card %s]", name,
				       vm->name, vm->cards[i]);
	for (const struct cardd_vm_conf *o = vm->next; o; o = o->next)
		if ((vm->cid && vm->cid == o->cid) ||
		    (vm->ivshmem[0] && !strcmp(vm->ivshmem, o->ivshmem)) ||
		    (vm->unix_path[0] && !strcmp(vm->unix_path, o->unix_path)) ||
		    (vm->hybrid[0] && !strcmp(vm->hybrid, o->hybrid)))
			return err_set(err, -EINVAL, "%s: [vm %s] and [vm %s] have the same address, and could "
				       "not be told apart", name, vm->name, o->name);
	if (!vm->ivshmem[0] && !vm->unix_path[0] && !vm->hybrid[0] && !vm->cid)
		return err_set(err, -EINVAL, "%s: [vm %s]: no way in (ivshmem, unix, hybrid or vsock)", name,
			       vm->name);
	return 0;
}

uint32_t cardd_conf_opened(const struct cardd_card_conf *card)
{
	return card->workers ? card->workers : 1;
}

/* Foreign code is never in the daemon; what answers by itself has nothing to gain from a process. */
static int check_card(struct cardd_card_conf *card, const char *name, struct err *err)
{
	const struct card_driver *driver = card_driver_of(card->spec);

	if (!card->spec[0])
		return err_set(err, -EINVAL, "%s: [card %s]: its driver is missing", name, card->name);
	if (!driver)
		return 0; /* opening it tells more */
	if (driver->apart && !card->workers)
		card->workers = 1;
	if (driver->reap && card->workers)
		return err_set(err, -EINVAL, "%s: [card %s] workers: %s has no use for them", name, card->name,
			       driver->name);
	return 0;
}

int cardd_conf_check(struct cardd_conf *c, const char *name, struct err *err)
{
	uint32_t cards = 0;

	for (struct cardd_card_conf *card = c->cards; card; card = card->next) {
		int rc = check_card(card, name, err);

		if (rc)
			return rc;
		cards += cardd_conf_opened(card);
		if (cards > CARDD_CARDS_MAX)
			return err_set(err, -EINVAL, "%s: more than %d cards and workers", name, CARDD_CARDS_MAX);
	}
	if (!cards)
		return err_set(err, -EINVAL, "%s: there is no [card NAME]", name);
	if (!c->vms)
		return err_set(err, -EINVAL, "%s: there is no [vm NAME]", name);
	for (struct cardd_vm_conf *vm = c->vms; vm; vm = vm->next) {
		int rc = check_vm(c, vm, name, err);

		if (rc)
			return rc;
	}
	return 0;
}

void cardd_conf_free(struct cardd_conf *c)
{
	while (c->vms) {
		struct cardd_vm_conf *vm = c->vms;

		c->vms = vm->next;
		for (unsigned i = 0; i < CARD_CLASSES; i++)
			free(vm->keys[i]);
		free(vm);
	}
	while (c->cards) {
		struct cardd_card_conf *card = c->cards;

		c->cards = card->next;
		free(card);
	}
}
