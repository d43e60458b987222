/* SPDX-License-Identifier: MIT */
#include "vm/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SMAPS_MAX (256u << 20)

int vm_slots_add(struct vm_slots *s, const struct vm_slot *slot)
{
	struct vm_slot *more;

	if (!slot->size || (slot->gpa | slot->size | slot->hva) % PAGE ||
	    slot->gpa + slot->size < slot->gpa || slot->hva + slot->size < slot->hva)
		return -EINVAL;
	for (size_t i = 0; i < s->n; i++)
		if (slot->gpa < s->slot[i].gpa + s->slot[i].size &&
		    s->slot[i].gpa < slot->gpa + slot->size)
			return -EINVAL;
	if (s->n >= VM_SLOTS_MAX)
		return -E2BIG;
	if (!(s->n & (s->n - 1))) { /* full at each power of two */
		more = realloc(s->slot, (s->n ? s->n * 2 : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		s->slot = more;
	}
	s->slot[s->n++] = *slot;
	return 0;
}

void vm_slots_free(struct vm_slots *s)
{
	free(s->slot);
	*s = (struct vm_slots){0};
}

uint64_t vm_slots_bytes(const struct vm_slots *s, bool with_rom)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n; i++)
		if (with_rom || !s->slot[i].rom)
			sum += s->slot[i].size;
	return sum;
}

bool vm_slots_next(const struct vm_slots *s, size_t *slot, uint64_t *offset, uint64_t bytes,
		   uint64_t align, struct vm_slot *piece)
{
	const struct vm_slot *from;
	uint64_t end;

	while (*slot < s->n && *offset >= s->slot[*slot].size) {
		++*slot;
		*offset = 0;
	}
	if (*slot >= s->n)
		return false;
	from = &s->slot[*slot];
	*piece = *from;
	piece->gpa += *offset;
	piece->hva += from->hva ? *offset : 0;
	piece->size = from->size - *offset;
	if (piece->size > bytes) {
		end = (piece->gpa + bytes) / align * align;
		piece->size = end > piece->gpa ? end - piece->gpa : bytes;
	}
	*offset += piece->size;
	return true;
}

/* --- mappings --- */

static int grow(struct vm_mappings *m)
{
	struct vm_mapping *more;

	if (m->n >= VM_MAPPINGS_MAX)
		return -E2BIG;
	if (!(m->n & (m->n - 1))) {
		more = realloc(m->map, (m->n ? m->n * 2 : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		m->map = more;
	}
	memset(&m->map[m->n++], 0, sizeof(*m->map));
	return 0;
}

/* "7f0000000000-7f0020000000 rw-p 00000000 00:00 0    [heap]" */
static bool parse_head(const char *line, struct vm_mapping *v)
{
	char perms[5];
	int path = 0;
	size_t n = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %*u %n", &v->start, &v->end, perms,
		   &path) < 3 || v->end <= v->start || strlen(perms) != 4)
		return false;
	v->writable = perms[1] == 'w';
	v->executable = perms[2] == 'x';
	v->shared = perms[3] == 's';
	v->page = PAGE;
	for (const char *p = line + path; path && *p && n + 1 < sizeof(v->path); p++)
		v->path[n++] = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
	v->path[n] = '\0';
	return true;
}

/* "Rss:   1024 kB" */
static void parse_field(const char *line, struct vm_mapping *v)
{
	static const struct {
		const char *name;
		size_t offset;
	} fields[] = {
		{"Rss:", offsetof(struct vm_mapping, rss)},
		{"Swap:", offsetof(struct vm_mapping, swap)},
		{"AnonHugePages:", offsetof(struct vm_mapping, huge)},
		{"ShmemPmdMapped:", offsetof(struct vm_mapping, huge)},
		{"FilePmdMapped:", offsetof(struct vm_mapping, huge)},
		{"Private_Hugetlb:", offsetof(struct vm_mapping, rss)}, /* not in Rss */
		{"Shared_Hugetlb:", offsetof(struct vm_mapping, rss)},
		{"KSM:", offsetof(struct vm_mapping, ksm)},
	};
	uint64_t kb;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		size_t n = strlen(fields[i].name);

		if (strncmp(line, fields[i].name, n) != 0)
			continue;
		kb = strtoull(line + n, NULL, 10);
		if (kb < UINT64_MAX >> 11)
			*(uint64_t *)((char *)v + fields[i].offset) += kb << 10;
	}
	if (!strncmp(line, "KernelPageSize:", 15)) {
		kb = strtoull(line + 15, NULL, 10);
		if (kb && kb < UINT64_MAX >> 11)
			v->page = kb << 10;
	}
	if (!strncmp(line, "VmFlags:", 8)) {
		v->mergeable = strstr(line, " mg") != NULL;
		v->no_huge = strstr(line, " nh") != NULL;
		v->hugetlb = strstr(line, " ht") != NULL;
	}
}

int vm_mappings_parse(const char *text, size_t size, struct vm_mappings *out, struct err *err)
{
	const char *end = text + size;
	struct vm_mapping head;
	char line[512];
	int rc;

	*out = (struct vm_mappings){0};
	while (text < end) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((stop ? stop : end) - text), keep = n < 511 ? n : 511;

		memcpy(line, text, keep);
		line[keep] = '\0';
		text += n + 1;
		memset(&head, 0, sizeof(head));
		if ((*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f')) {
			rc = parse_head(line, &head) ? grow(out) : -EPROTO;
			if (rc) {
				vm_mappings_free(out);
				return err_sys(err, rc, "read the process's mappings");
			}
			out->map[out->n - 1] = head;
		} else if (out->n) {
			parse_field(line, &out->map[out->n - 1]);
		}
	}
	return 0;
}

static int read_all(FILE *f, char **text, size_t *size)
{
	size_t room = 0;

	*text = NULL;
	*size = 0;
	do {
		if (*size == room) {
			char *more = room < SMAPS_MAX ? realloc(*text, room += 1u << 18) : NULL;

			if (!more)
				return -ENOMEM;
			*text = more;
		}
		*size += fread(*text + *size, 1, room - *size, f);
	} while (!feof(f) && !ferror(f));
	return ferror(f) ? -EIO : 0;
}

int vm_mappings_read(pid_t pid, struct vm_mappings *out, struct err *err)
{
	char path[64], *text = NULL;
	size_t size;
	FILE *f;
	int rc;

	*out = (struct vm_mappings){0};
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(err, errno == ENOENT ? -ESRCH : -errno, "%s", path);
	rc = read_all(f, &text, &size);
	fclose(f);
	if (rc)
		err_sys(err, rc, "%s", path);
	else
		rc = vm_mappings_parse(text, size, out, err);
	free(text);
	return rc;
}

void vm_mappings_free(struct vm_mappings *m)
{
	free(m->map);
	*m = (struct vm_mappings){0};
}

const struct vm_mapping *vm_mapping_at(const struct vm_mappings *m, uint64_t address)
{
	for (size_t i = 0; i < m->n; i++)
		if (address >= m->map[i].start && address < m->map[i].end)
			return &m->map[i];
	return NULL;
}

static bool holds(const struct vm_mapping *v, const struct vm_slots *s, bool rom)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->slot[i].rom == rom && s->slot[i].hva && s->slot[i].hva < v->end &&
		    v->start < s->slot[i].hva + s->slot[i].size)
			return true;
	return false;
}

void vm_resident_of(const struct vm_slots *s, const struct vm_mappings *m, struct vm_resident *r)
{
	*r = (struct vm_resident){0};
	for (const struct vm_mapping *v = m->map; v < m->map + m->n; v++) {
		bool ram = holds(v, s, false);

		if (!ram && !holds(v, s, true))
			continue;
		r->swap += v->swap;
		r->ksm += v->ksm;
		if (!ram)
			continue;
		r->size += v->end - v->start;
		r->rss += v->rss;
		r->huge += v->huge;
		r->hugetlb = r->hugetlb || v->hugetlb;
		r->mergeable = r->mergeable || v->mergeable;
		if (!r->page || v->page < r->page)
			r->page = v->page;
		if (v->page > r->largest)
			r->largest = v->page;
	}
}

/* --- without a monitor --- */

struct candidate {
	uint64_t start, size;
};

static int larger_first(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return (x->size < y->size) - (x->size > y->size);
}

/* Not code: a translator's buffer is larger than many a guest. */
static bool may_be_ram(const struct vm_mapping *v)
{
	return v->writable && !v->executable && (!*v->path || v->shared || v->hugetlb) && strcmp(v->path, "[heap]");
}

/* Mappings side by side may be one, and RAM may be several: the largest, until it is enough. */
int vm_slots_guess(const struct vm_mappings *m, uint64_t bytes, struct vm_slots *out,
		   struct err *err)
{
	struct candidate *list = calloc(m->n ? m->n : 1, sizeof(*list));
	uint64_t found = 0;
	size_t n = 0;

	*out = (struct vm_slots){0};
	if (!list)
		return err_sys(err, -ENOMEM, "find the guest's memory");
	for (size_t i = 0; i < m->n; i++)
		if (may_be_ram(&m->map[i]))
			list[n++] = (struct candidate){m->map[i].start, m->map[i].end - m->map[i].start};
	for (size_t i = 0; i < n; i++)
		if (list[i].size == bytes) { /* this is it */
			list[0] = list[i];
			n = 1;
		}
	qsort(list, n, sizeof(*list), larger_first);
	for (size_t i = 0; i < n && found < bytes; i++) {
		/* gpa: only that slots do not overlap */
		struct vm_slot s = {
			.gpa = found, .hva = list[i].start, .size = list[i].size, .name = "guess"};

		if (s.size < bytes / 16 || vm_slots_add(out, &s))
			break;
		found += s.size;
	}
	free(list);
	if (found >= bytes)
		return 0;
	vm_slots_free(out);
	return err_set(err, -ENOENT, "find the guest's memory: the process has no mappings of its size "
		       "(name the VM by qmp:PATH)");
}
