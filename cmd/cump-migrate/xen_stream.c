/* SPDX-License-Identifier: MIT */
#ifdef HAVE_XEN
#include "xen_stream.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vm/xen.h"

#define PAGE 4096u

/* ---- the two formats ---- */

struct libxl_header {
	uint64_t ident; /* big-endian */
	uint32_t version, options;
};
#define LIBXL_IDENT 0x4c6962786c466d74ull
#define LIBXL_VERSION_2 2

struct image_header {
	uint64_t marker;
	uint32_t id, version; /* big-endian */
	uint16_t options, reserved1;
	uint32_t reserved2;
};
#define IMAGE_ID 0x58454e46u /* "XENF" */
#define IMAGE_VERSION 3

struct domain_header {
	uint32_t type;
	uint16_t page_shift, reserved;
	uint32_t xen_major, xen_minor;
};
#define DOMAIN_X86_HVM 2

struct record_header {
	uint32_t type, length;
};

enum libxl_record { LIBXL_REC_END = 0, LIBXL_REC_LIBXC_CONTEXT = 1 };

enum libxc_record {
	REC_END = 0,
	REC_PAGE_DATA = 1,
	REC_X86_TSC_INFO = 8,
	REC_HVM_CONTEXT = 9,
	REC_HVM_PARAMS = 0xa,
	REC_STATIC_DATA_END = 0x10,
	REC_X86_CPUID_POLICY = 0x11,
	REC_X86_MSR_POLICY = 0x12,
};

struct page_data {
	uint32_t count, reserved;
};
#define PAGE_TYPE_SHIFT 32 /* XEN_DOMCTL_PFINFO_* are in bits 31–28 of a word */

struct tsc_info {
	uint32_t mode, khz;
	uint64_t nsec;
	uint32_t incarnation, reserved;
};

struct hvm_params {
	uint32_t count, reserved;
	struct {
		uint64_t index, value;
	} param[32];
};

_Static_assert(sizeof(struct libxl_header) == 16 && sizeof(struct image_header) == 24 &&
	       sizeof(struct domain_header) == 16 && sizeof(struct tsc_info) == 24, "wire");

/* ---- bytes ---- */

static void *add(struct xen_bytes *b, const void *data, size_t n)
{
	if (b->size + n > b->room) {
		size_t room = (b->size + n) * 2;
		uint8_t *bigger = realloc(b->data, room);

		if (!bigger) {
			b->failed = true;
			return NULL;
		}
		b->data = bigger;
		b->room = room;
	}
	if (data)
		memcpy(b->data + b->size, data, n);
	else
		memset(b->data + b->size, 0, n);
	b->size += n;
	return b->data + b->size - n;
}

int xen_bytes_free(struct xen_bytes *b)
{
	int rc = b->failed ? -ENOMEM : 0;

	free(b->data);
	memset(b, 0, sizeof(*b));
	return rc;
}

/* A record, its body padded to 8 bytes. */
static void add_record(struct xen_bytes *b, uint32_t type, const void *body, size_t n)
{
	struct record_header h = {type, (uint32_t)n};

	add(b, &h, sizeof(h));
	if (n)
		add(b, body, n);
	if (n % 8)
		add(b, NULL, 8 - n % 8);
}

/* ---- head ---- */

static void add_preface(struct xen_bytes *b, struct json_object *preface)
{
	const char *text = json_object_to_json_string_ext(preface, JSON_C_TO_STRING_PLAIN);
	struct xen_preface p = {XEN_PREFACE_MAGIC, (uint32_t)strlen(text), 0};

	add(b, &p, sizeof(p));
	add(b, text, p.length);
}

/* write_x86_cpu_policy_records() of Xen's tools/libs/guest/xg_sr_common_x86.c */
static int add_cpu_policy(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	xc_cpu_policy_t *policy = xc_cpu_policy_init();
	uint32_t leaves = 0, msrs = 0;
	xen_cpuid_leaf_t *leaf = NULL;
	xen_msr_entry_t *msr = NULL;
	int rc = -EIO;

	if (policy && !xc_cpu_policy_get_size(xch, &leaves, &msrs)) {
		leaf = calloc(leaves, sizeof(*leaf));
		msr = calloc(msrs, sizeof(*msr));
	}
	if (leaf && msr && !xc_cpu_policy_get_domain(xch, domid, policy) &&
	    !xc_cpu_policy_serialise(xch, policy, leaf, &leaves, msr, &msrs)) {
		if (leaves)
			add_record(b, REC_X86_CPUID_POLICY, leaf, leaves * sizeof(*leaf));
		if (msrs)
			add_record(b, REC_X86_MSR_POLICY, msr, msrs * sizeof(*msr));
		rc = 0;
	}
	free(leaf);
	free(msr);
	xc_cpu_policy_destroy(policy);
	return rc ? xen_error(err, rc, "read CPU policy of domain %u", domid) : 0;
}

void xen_put_opening(struct xen_bytes *b, struct json_object *preface)
{
	struct libxl_header outer = {htobe64(LIBXL_IDENT), htobe32(LIBXL_VERSION_2), 0};

	add_preface(b, preface);
	add(b, &outer, sizeof(outer));
	add_record(b, LIBXL_REC_LIBXC_CONTEXT, NULL, 0);
}

void xen_put_closing(struct xen_bytes *b)
{
	add_record(b, LIBXL_REC_END, NULL, 0);
}

int xen_put_head(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct json_object *preface,
		 struct err *err)
{
	struct image_header image = {UINT64_MAX, htonl(IMAGE_ID), htonl(IMAGE_VERSION), 0, 0, 0};
	int version = xc_version(xch, XENVER_version, NULL), rc;
	struct domain_header domain = {DOMAIN_X86_HVM, 12, 0, (uint32_t)version >> 16,
				       (uint32_t)version & 0xffff};

	if (version < 0)
		return xen_error(err, -EIO, "ask Xen for its version");
	xen_put_opening(b, preface);
	add(b, &image, sizeof(image));
	add(b, &domain, sizeof(domain));
	rc = add_cpu_policy(b, xch, domid, err);
	add_record(b, REC_STATIC_DATA_END, NULL, 0);
	return rc;
}

/* ---- tail ---- */

static int add_tsc(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	struct tsc_info t = {0};

	if (xc_domain_get_tsc_info(xch, domid, &t.mode, &t.nsec, &t.khz, &t.incarnation))
		return xen_error(err, -EIO, "read TSC of domain %u", domid);
	add_record(b, REC_X86_TSC_INFO, &t, sizeof(t));
	return 0;
}

static int add_context(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	int n = xc_domain_hvm_getcontext(xch, domid, NULL, 0);
	uint8_t *context = n > 0 ? malloc((size_t)n) : NULL;

	if (context)
		n = xc_domain_hvm_getcontext(xch, domid, context, (uint32_t)n);
	if (!context || n < 0) {
		free(context);
		return xen_error(err, -EIO, "read state of domain %u", domid);
	}
	add_record(b, REC_HVM_CONTEXT, context, (size_t)n);
	free(context);
	return 0;
}

/* Those that Xen's own saver sends (write_hvm_params() of xg_sr_save_x86_hvm.c). */
static int add_params(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	static const uint32_t wanted[] = {
		HVM_PARAM_STORE_PFN, HVM_PARAM_IOREQ_PFN, HVM_PARAM_BUFIOREQ_PFN,
		HVM_PARAM_PAGING_RING_PFN, HVM_PARAM_MONITOR_RING_PFN, HVM_PARAM_SHARING_RING_PFN,
		HVM_PARAM_VM86_TSS_SIZED, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_ACPI_IOPORTS_LOCATION,
		HVM_PARAM_VIRIDIAN, HVM_PARAM_IDENT_PT, HVM_PARAM_VM_GENERATION_ID_ADDR,
		HVM_PARAM_IOREQ_SERVER_PFN, HVM_PARAM_NR_IOREQ_SERVER_PAGES,
		HVM_PARAM_X87_FIP_WIDTH, HVM_PARAM_MCA_CAP,
	};
	struct hvm_params p = {0};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		uint64_t value = 0;

		if (xc_hvm_param_get(xch, domid, wanted[i], &value))
			return xen_error(err, -EIO, "read parameter %u of domain %u", wanted[i], domid);
		if (!value)
			continue;
		p.param[p.count].index = wanted[i];
		p.param[p.count++].value = value;
	}
	if (p.count)
		add_record(b, REC_HVM_PARAMS, &p, 8 + p.count * sizeof(p.param[0]));
	return 0;
}

static int add_cpus(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	int rc = add_tsc(b, xch, domid, err);

	return rc ? rc : add_context(b, xch, domid, err);
}

int xen_put_end(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	int rc = add_cpus(b, xch, domid, err);

	if (!rc)
		rc = add_params(b, xch, domid, err);
	add_record(b, REC_END, NULL, 0);
	xen_put_closing(b);
	return rc;
}

int xen_put_late_end(struct xen_bytes *b, xc_interface *xch, uint32_t domid, struct err *err)
{
	int rc = add_cpus(b, xch, domid, err);

	add_record(b, REC_END, NULL, 0);
	return rc;
}

/* ---- pages ---- */

static int write_all(int fd, struct iovec *iov, size_t count, struct err *err)
{
	while (count) {
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = count < IOV_MAX ? count : IOV_MAX};
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "write a domain's stream");
		for (; count && (size_t)n >= iov->iov_len; iov++, count--)
			n -= (ssize_t)iov->iov_len;
		if (count) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int xen_write(int fd, const void *data, size_t n, struct err *err)
{
	struct iovec iov = {(void *)(uintptr_t)data, n};

	return write_all(fd, &iov, n ? 1 : 0, err);
}

/* Neighbouring pages are one piece of memory as often as not: fewer pieces, fewer system calls. */
static size_t gather(struct iovec *iov, const struct cump_page *page, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++) {
		struct iovec *last = count ? &iov[count - 1] : NULL;

		if (!page[i].data)
			continue;
		if (last && (const uint8_t *)last->iov_base + last->iov_len == page[i].data)
			last->iov_len += PAGE;
		else
			iov[count++] = (struct iovec){(void *)(uintptr_t)page[i].data, PAGE};
	}
	return count;
}

int xen_write_pages(int fd, const struct cump_page *page, size_t n, struct err *err)
{
	struct {
		struct record_header record;
		struct page_data data;
		uint64_t pfn[CUMP_BATCH];
	} head = {.record = {REC_PAGE_DATA, 0}, .data = {(uint32_t)n, 0}};
	struct iovec iov[1 + CUMP_BATCH];
	size_t with_data = 0;

	for (size_t i = 0; i < n; i++) {
		head.pfn[i] = (uint64_t)page[i].type << PAGE_TYPE_SHIFT | page[i].gfn;
		with_data += page[i].data != NULL;
	}
	head.record.length = (uint32_t)(sizeof(head.data) + n * sizeof(uint64_t) + with_data * PAGE);
	iov[0] = (struct iovec){&head, sizeof(head.record) + sizeof(head.data) + n * sizeof(uint64_t)};
	return write_all(fd, iov, 1 + gather(iov + 1, page, n), err);
}

/* ---- the other side ---- */

static int read_all(int fd, void *buf, size_t n, struct err *err)
{
	uint8_t *to = buf;

	while (n) {
		ssize_t got = read(fd, to, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? err_sys(err, -errno, "read a domain's stream")
				   : err_set(err, -EBADMSG, "read a domain's stream: it ended early");
		to += got;
		n -= (size_t)got;
	}
	return 0;
}

#define LATE_CONTEXT_MAX (1u << 20) /* some KiB, and one more a processor */

struct late {
	int fd;
	const struct xen_late_ops *ops;
	void *ctx;
	uint64_t bytes;
};

static int read_late(struct late *l, void *buf, size_t n, struct err *err)
{
	l->bytes += n;
	return read_all(l->fd, buf, n, err);
}

static int bad_late(const struct record_header *h, struct err *err)
{
	return err_set(err, -EBADMSG, "read a domain's stream: a record of type %#x and %u bytes that is not late",
		       h->type, h->length);
}

/* Pieces of memory, as they come, into @to; what goes nowhere is read into one page. */
static int read_contents(struct late *l, void *const *to, size_t n, struct err *err)
{
	uint8_t nowhere[PAGE];
	int rc = 0;

	for (size_t i = 0, k; !rc && i < n; i = k) {
		size_t size = PAGE;

		for (k = i + 1; to[i] && k < n && to[k] == (uint8_t *)to[i] + size; k++)
			size += PAGE;
		rc = read_late(l, to[i] ? to[i] : nowhere, size, err);
	}
	return rc;
}

static int read_pages(struct late *l, const struct record_header *h, struct err *err)
{
	struct page_data head;
	uint64_t gfn[CUMP_BATCH];
	void *to[CUMP_BATCH];
	size_t with = 0;
	int rc = h->length < sizeof(head) ? bad_late(h, err) : read_late(l, &head, sizeof(head), err);

	if (!rc && (!head.count || head.count > CUMP_BATCH || head.reserved ||
		    h->length < sizeof(head) + head.count * sizeof(gfn[0])))
		rc = bad_late(h, err);
	if (!rc)
		rc = read_late(l, gfn, head.count * sizeof(gfn[0]), err);
	for (size_t i = 0; !rc && i < head.count; i++) {
		uint32_t type = (uint32_t)(gfn[i] >> PAGE_TYPE_SHIFT);

		if (type & 0x0ff00000) /* reserved: a gfn has 52 bits */
			return bad_late(h, err);
		if (xen_page_has_data(type & 0xf0000000))
			gfn[with++] = gfn[i] & ((1ull << 52) - 1);
	}
	if (!rc && h->length != sizeof(head) + head.count * sizeof(gfn[0]) + with * PAGE)
		rc = bad_late(h, err);
	if (rc || !with)
		return rc;
	rc = l->ops->map(l->ctx, gfn, with, to, err);
	if (rc)
		return rc;
	rc = read_contents(l, to, with, err);
	l->ops->unmap(l->ctx);
	return rc;
}

static int read_tsc(struct late *l, const struct record_header *h, struct err *err)
{
	struct tsc_info t;
	struct xen_tsc tsc;
	int rc = h->length != sizeof(t) ? bad_late(h, err) : read_late(l, &t, sizeof(t), err);

	if (rc)
		return rc;
	tsc = (struct xen_tsc){t.mode, t.khz, t.nsec, t.incarnation};
	return l->ops->tsc(l->ctx, &tsc, err);
}

static int read_context(struct late *l, const struct record_header *h, struct err *err)
{
	size_t padded = (h->length + 7ull) & ~7ull;
	uint8_t *data;
	int rc;

	if (!h->length || h->length > LATE_CONTEXT_MAX)
		return bad_late(h, err);
	data = malloc(padded);
	rc = data ? read_late(l, data, padded, err) : err_set(err, -ENOMEM, "read a domain's stream: out of memory");
	if (!rc)
		rc = l->ops->context(l->ctx, data, h->length, err);
	free(data);
	return rc;
}

int xen_read_late(int fd, const struct xen_late_ops *ops, void *ctx, uint64_t *bytes, struct err *err)
{
	struct late l = {fd, ops, ctx, 0};
	struct record_header h;
	int rc;

	do {
		rc = read_late(&l, &h, sizeof(h), err);
		if (rc || (h.type == REC_END && !h.length))
			break;
		rc = h.type == REC_PAGE_DATA ? read_pages(&l, &h, err)
		     : h.type == REC_X86_TSC_INFO ? read_tsc(&l, &h, err)
		     : h.type == REC_HVM_CONTEXT ? read_context(&l, &h, err)
						 : bad_late(&h, err);
	} while (!rc);
	*bytes = l.bytes;
	return rc;
}

int xen_read_preface(int fd, struct json_object **preface, struct err *err)
{
	struct xen_preface p;
	char *text;
	int rc = read_all(fd, &p, sizeof(p), err);

	if (rc)
		return rc;
	if (memcmp(p.magic, XEN_PREFACE_MAGIC, sizeof(p.magic)) != 0 || p.reserved || !p.length ||
	    p.length > XEN_PREFACE_MAX)
		return err_set(err, -EBADMSG, "read a domain's stream: it does not begin as one");
	text = calloc(1, p.length + 1);
	rc = text ? read_all(fd, text, p.length, err) : err_set(err, -ENOMEM, "read a domain's stream: out of memory");
	if (!rc) {
		*preface = json_tokener_parse(text);
		if (!*preface || !json_object_is_type(*preface, json_type_object)) {
			json_object_put(*preface);
			*preface = NULL;
			rc = err_set(err, -EBADMSG, "read a domain's stream: its configuration is no JSON");
		}
	}
	free(text);
	return rc;
}
#endif
