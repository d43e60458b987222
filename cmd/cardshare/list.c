/* SPDX-License-Identifier: MIT */
/* cardshare list: crypto controllers on PCI, ivshmem devices, and the kinds of cards there are. */
#include <json-c/json.h>
#include <pci/pci.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "card/card.h"
#include "cardshare.h"

#define CLASS_CRYPT 0x10 /* encryption controllers, base class */
#define VENDOR_QUMRANET 0x1af4
#define DEVICE_IVSHMEM 0x1110

static struct list_opts {
	bool json;
} o;

const struct cli_opt list_opts[] = {
	{0, "json", CLI_FLAG, &o.json, NULL, "one JSON object a line"},
	CLI_END,
};

static jmp_buf no_pci;

static void __attribute__((noreturn, format(printf, 1, 2))) on_pci_error(char *text, ...)
{
	(void)text;
	longjmp(no_pci, 1);
}

static void print_device(struct pci_access *pci, struct pci_dev *d, const char *what)
{
	char name[256], where[32];
	struct json_object *j;

	snprintf(where, sizeof(where), "%04x:%02x:%02x.%d", (unsigned)d->domain, d->bus, d->dev, d->func);
	pci_lookup_name(pci, name, sizeof(name), PCI_LOOKUP_VENDOR | PCI_LOOKUP_DEVICE, d->vendor_id, d->device_id);
	if (!o.json) {
		printf("%-8s %-14s %04x:%04x %s\n", what, where, d->vendor_id, d->device_id, name);
		return;
	}
	j = json_object_new_object();
	json_object_object_add(j, "schema", json_object_new_string("util-vm/cardshare/list/1"));
	json_object_object_add(j, "kind", json_object_new_string(what));
	json_object_object_add(j, "address", json_object_new_string(where));
	json_object_object_add(j, "vendor", json_object_new_int64(d->vendor_id));
	json_object_object_add(j, "device", json_object_new_int64(d->device_id));
	json_object_object_add(j, "name", json_object_new_string(name));
	puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
	json_object_put(j);
}

static void list_pci(void)
{
	struct pci_access *pci = pci_alloc();

	pci->error = on_pci_error;
	if (setjmp(no_pci)) {
		log_verbose("list: no PCI bus can be read here");
		return;
	}
	pci_init(pci);
	pci_scan_bus(pci);
	for (struct pci_dev *d = pci->devices; d; d = d->next) {
		pci_fill_info(d, PCI_FILL_IDENT | PCI_FILL_CLASS);
		if (d->device_class >> 8 == CLASS_CRYPT)
			print_device(pci, d, "crypto");
		else if (d->vendor_id == VENDOR_QUMRANET && d->device_id == DEVICE_IVSHMEM)
			print_device(pci, d, "ivshmem");
	}
	pci_cleanup(pci);
}

static void list_drivers(void)
{
	for (const struct card_driver *const *d = card_drivers; *d; d++) {
		struct json_object *j;

		if (!o.json) {
			printf("%-8s %-14s %s\n", "driver", (*d)->name, (*d)->help);
			continue;
		}
		j = json_object_new_object();
		json_object_object_add(j, "schema", json_object_new_string("util-vm/cardshare/list/1"));
		json_object_object_add(j, "kind", json_object_new_string("driver"));
		json_object_object_add(j, "name", json_object_new_string((*d)->name));
		json_object_object_add(j, "help", json_object_new_string((*d)->help));
		puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
		json_object_put(j);
	}
}

int list_run(int argc, char **argv)
{
	if (argc)
		return cli_usage_error("%s: no arguments are taken", argv[0]);
	list_pci();
	list_drivers();
	return EXIT_DONE;
}
