/* SPDX-License-Identifier: MIT */
#include "vm/qemu_mtree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "name @offset KVM", offset and the accelerator's word only where they are. */
static bool take_name(const char *text, bool with_kvm, struct vm_slot *slot)
{
	size_t n = strlen(text), len = 0;
	const char *at = strstr(text, " @");
	bool kvm = n >= 4 && !strcmp(text + n - 4, " KVM");

	if (with_kvm && !kvm)
		return false;
	n = at ? (size_t)(at - text) : kvm ? n - 4 : n;
	for (; len < n && len + 1 < sizeof(slot->name); len++)
		slot->name[len] = (unsigned char)text[len] < ' ' || text[len] == 0x7f ? '?' : text[len];
	slot->name[len] = '\0';
	return true;
}

/* "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM" */
static bool take_range(const char *line, bool with_kvm, struct vm_slot *slot)
{
	uint64_t first, last;
	char kind[16];
	int name = 0;

	*slot = (struct vm_slot){0};
	if (sscanf(line, " %16" SCNx64 "-%16" SCNx64 " (prio %*d, %15[^)]): %n", &first, &last, kind,
		   &name) != 3 || !name || last < first || last == UINT64_MAX)
		return false;
	slot->rom = strcmp(kind, "ram") != 0;
	if (slot->rom && strcmp(kind, "rom") != 0 && strcmp(kind, "romd") != 0)
		return false; /* i/o; and ramd, a device's own memory, which is no RAM to fill */
	slot->gpa = first;
	slot->size = last - first + 1;
	return take_name(line + name, with_kvm, slot);
}

int qemu_mtree_parse(const char *text, bool with_kvm, struct vm_slots *out, struct err *err)
{
	bool ours = false, seen = false;
	char line[256];
	int rc = 0;

	*out = (struct vm_slots){0};
	while (*text && !rc) {
		struct vm_slot slot;
		size_t n = strcspn(text, "\r\n"), keep = n < 255 ? n : 255;

		memcpy(line, text, keep);
		line[keep] = '\0';
		text += n;
		text += strspn(text, "\r\n");
		if (!strncmp(line, "FlatView #", 10))
			ours = false;
		else if (!seen && !strncmp(line, " AS \"memory\",", 13))
			ours = seen = true;
		else if (ours && take_range(line, with_kvm, &slot))
			rc = vm_slots_add(out, &slot);
	}
	if (!rc && (!seen || !out->n))
		rc = -EPROTO;
	if (!rc)
		return 0;
	vm_slots_free(out);
	return err_set(err, rc, "info mtree -f: %s",
		       rc == -ENOMEM ? "no memory" :
		       rc == -EPROTO ? "it names no memory of the guest" :
				       "its ranges make no sense");
}

int qemu_gpa2hva_parse(const char *text, uint64_t *hva)
{
	const char *is = strstr(text, ") is 0x");
	char *end;

	if (strncmp(text, "Host virtual address for", 24) != 0 || !is)
		return -EPROTO;
	errno = 0;
	*hva = strtoull(is + 7, &end, 16);
	return errno || end == is + 7 || !*hva ? -EPROTO : 0;
}
