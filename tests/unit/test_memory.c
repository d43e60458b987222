/* SPDX-License-Identifier: MIT */
/* What tells of a VM's memory, as QEMU and the kernel print it; and its pieces. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vm/kvm.h"
#include "vm/memory.h"
#include "vm/qemu_mtree.h"

#define MIB (1ull << 20)

static const char mtree[] =
	"FlatView #0\r\n"
	" AS \"VGA\", root: bus master container\r\n"
	" Root memory region: (none)\r\n"
	"  No rendered FlatView\r\n\r\n"
	"FlatView #1\r\n"
	" AS \"memory\", root: system\r\n"
	" AS \"cpu-memory-0\", root: system\r\n"
	" Root memory region: system\r\n"
	"  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM\r\n"
	"  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r\n"
	"  00000000000c0000-00000000000c3fff (prio 0, rom): pc.ram @00000000000c0000 KVM\r\n"
	"  0000000000100000-0000000007ffffff (prio 0, ram): pc.ram @0000000000100000 KVM\r\n"
	"  00000000fd000000-00000000fdffffff (prio 1, ram): 0000:00:01.0/vga.vram KVM\r\n"
	"  00000000fe000000-00000000fe000fff (prio 1, ramd): 0000:00:02.0 BAR 0 mmaps[0] KVM\r\n"
	"  00000000fec00000-00000000fec00fff (prio 0, i/o): kvm-ioapic\r\n"
	"  00000000fffc0000-00000000ffffffff (prio 0, romd): system.flash0\r\n\r\n"
	"FlatView #2\r\n"
	" AS \"KVM-SMRAM\", root: mem-container-smram\r\n"
	"  0000000000000000-0000000007ffffff (prio 0, ram): pc.ram KVM\r\n";

static void test_mtree(void **state)
{
	struct vm_slots s;
	struct err err = {0};

	(void)state;
	assert_int_equal(qemu_mtree_parse(mtree, true, &s, &err), 0);
	assert_int_equal(s.n, 4);
	assert_int_equal(s.slot[0].gpa, 0);
	assert_int_equal(s.slot[0].size, 0xa0000);
	assert_false(s.slot[0].rom);
	assert_string_equal(s.slot[0].name, "pc.ram");
	assert_true(s.slot[1].rom);
	assert_int_equal(s.slot[1].size, 0x4000);
	assert_string_equal(s.slot[1].name, "pc.ram");
	assert_int_equal(s.slot[2].gpa, MIB);
	assert_string_equal(s.slot[3].name, "0000:00:01.0/vga.vram");
	assert_int_equal(vm_slots_bytes(&s, false), 0xa0000 + 127 * MIB + 16 * MIB);
	assert_int_equal(vm_slots_bytes(&s, true) - vm_slots_bytes(&s, false), 0x4000);
	vm_slots_free(&s);
	assert_int_equal(qemu_mtree_parse(mtree, false, &s, &err), 0);
	assert_int_equal(s.n, 5); /* and what is a device at present */
	assert_string_equal(s.slot[4].name, "system.flash0");
	vm_slots_free(&s);
}

static void test_mtree_hostile(void **state)
{
	static const char *const bad[] = {
		"",
		"FlatView #0\n AS \"memory\", root: system\n",
		"FlatView #0\n AS \"other\", root: system\n  0-fff (prio 0, ram): a KVM\n",
		/* not whole pages; overlapping; beyond the end */
		"FlatView #0\n AS \"memory\",\n  0-ffe (prio 0, ram): a KVM\n",
		"FlatView #0\n AS \"memory\",\n  0-1fff (prio 0, ram): a KVM\n  1000-2fff (prio 0, ram): b KVM\n",
		"FlatView #0\n AS \"memory\",\n  0-ffffffffffffffff (prio 0, ram): a KVM\n",
		"FlatView #0\n AS \"memory\",\n  2000-1fff (prio 0, ram): a KVM\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vm_slots s;
		struct err err = {0};

		assert_true(qemu_mtree_parse(bad[i], true, &s, &err) < 0);
		assert_int_equal(s.n, 0);
		assert_true(*err.text);
	}
}

static void test_gpa2hva(void **state)
{
	uint64_t hva = 0;

	(void)state;
	assert_int_equal(qemu_gpa2hva_parse("Host virtual address for 0x100000 (pc.ram) is 0x7f2b7be00000\r\n",
					    &hva), 0);
	assert_true(hva == 0x7f2b7be00000);
	assert_int_equal(qemu_gpa2hva_parse("No memory is mapped at address 0x0\r\n", &hva), -EPROTO);
	assert_int_equal(qemu_gpa2hva_parse("Memory at address 0xfec00000 is not RAM\r\n", &hva), -EPROTO);
	assert_int_equal(qemu_gpa2hva_parse("Host virtual address for 0x0 (a) is 0xz", &hva), -EPROTO);
}

static void add(struct vm_slots *s, uint64_t gpa, uint64_t size, uint64_t hva, bool rom)
{
	struct vm_slot slot = {.gpa = gpa, .size = size, .hva = hva, .rom = rom, .name = "x"};

	assert_int_equal(vm_slots_add(s, &slot), 0);
}

/* Every byte once, in order, and no piece over an alignment that it could have ended at. */
static void test_pieces(void **state)
{
	static const uint64_t chunks[] = {4096, 3 * 4096, 2 * MIB, 3 * MIB, 32 * MIB, 1ull << 40};
	struct vm_slots s = {0};

	(void)state;
	add(&s, 0, 0xa0000, 0x10000000, false);
	add(&s, 0xc0000, 0x4000, 0, true);
	add(&s, MIB, 127 * MIB + 4096, 0x20000000, false);
	add(&s, 1ull << 32, 5 * MIB, 0x40000000, false);
	for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
		uint64_t offset = 0, sum = 0, expected = 0;
		size_t slot = 0, at = 0;
		struct vm_slot p;

		while (vm_slots_next(&s, &slot, &offset, chunks[c], 2 * MIB, &p)) {
			while (expected >= s.slot[at].gpa + s.slot[at].size ||
			       expected < s.slot[at].gpa) {
				if (expected >= s.slot[at].gpa + s.slot[at].size)
					at++;
				expected = s.slot[at].gpa;
			}
			assert_true(p.size && p.size <= chunks[c] && p.size % 4096 == 0);
			assert_true(p.gpa == expected);
			assert_true(p.hva == (s.slot[at].hva ? s.slot[at].hva + p.gpa - s.slot[at].gpa : 0));
			assert_true(chunks[c] < 2 * MIB || (p.gpa + p.size) % (2 * MIB) == 0 ||
				    p.gpa + p.size == s.slot[at].gpa + s.slot[at].size);
			expected = p.gpa + p.size;
			sum += p.size;
		}
		assert_true(sum == vm_slots_bytes(&s, true));
	}
	vm_slots_free(&s);
}

static void test_add_refuses(void **state)
{
	struct vm_slots s = {0};
	struct vm_slot slot = {.gpa = 0, .size = 0};

	(void)state;
	assert_int_equal(vm_slots_add(&s, &slot), -EINVAL);
	slot = (struct vm_slot){.gpa = UINT64_MAX - 4095, .size = 8192};
	assert_int_equal(vm_slots_add(&s, &slot), -EINVAL);
	for (uint64_t i = 0; i < VM_SLOTS_MAX; i++)
		add(&s, i * 8192, 4096, 0, false);
	slot = (struct vm_slot){.gpa = 1ull << 40, .size = 4096};
	assert_int_equal(vm_slots_add(&s, &slot), -E2BIG);
	vm_slots_free(&s);
}

static const char smaps[] =
	"55d000000000-55d000001000 r-xp 00000000 fd:01 1234                       /usr/bin/qemu-system-x86_64\n"
	"Size:                  4 kB\nKernelPageSize:        4 kB\nRss:                   4 kB\n"
	"VmFlags: rd ex mr mw me \n"
	"7f0000000000-7f0020000000 rw-p 00000000 00:00 0 \n"
	"Size:             524288 kB\nKernelPageSize:        4 kB\nRss:              131072 kB\n"
	"AnonHugePages:     65536 kB\nSwap:                 16 kB\nKSM:                  8 kB\n"
	"VmFlags: rd wr mr mw me ac sd hg mg \n"
	"7f0040000000-7f0080000000 rw-s 00000000 00:0f 99                         /dev/hugepages/x (deleted)\n"
	"Size:            1048576 kB\nKernelPageSize:     2048 kB\nRss:                   0 kB\n"
	"Shared_Hugetlb:   204800 kB\nPrivate_Hugetlb:       0 kB\nVmFlags: rd wr sh mr mw me ms ht sd \n";

static void test_smaps(void **state)
{
	struct vm_slots s = {0};
	struct vm_resident r;
	struct vm_mappings m;
	struct err err = {0};

	(void)state;
	assert_int_equal(vm_mappings_parse(smaps, strlen(smaps), &m, &err), 0);
	assert_int_equal(m.n, 3);
	assert_string_equal(m.map[0].path, "/usr/bin/qemu-system-x86_64");
	assert_string_equal(m.map[1].path, "");
	assert_true(m.map[1].mergeable && !m.map[1].shared && m.map[1].writable);
	assert_true(m.map[2].hugetlb && m.map[2].shared && m.map[2].page == 2 * MIB);
	assert_true(m.map[2].rss == 200 * MIB);
	assert_ptr_equal(vm_mapping_at(&m, 0x7f0000001000), &m.map[1]);
	assert_null(vm_mapping_at(&m, 0x7f0020000000));
	add(&s, 0, 256 * MIB, 0x7f0000000000, false);
	add(&s, 256 * MIB, 256 * MIB, 0x7f0010000000, false); /* the same mapping: once */
	vm_resident_of(&s, &m, &r);
	assert_true(r.size == 512 * MIB && r.rss == 128 * MIB && r.huge == 64 * MIB);
	assert_true(r.swap == 16 << 10 && r.ksm == 8 << 10 && r.mergeable && !r.hugetlb);
	add(&s, 1ull << 32, 1024 * MIB, 0x7f0040000000, false);
	vm_resident_of(&s, &m, &r);
	assert_true(r.page == 4096 && r.largest == 2 * MIB && r.hugetlb);
	vm_slots_free(&s);
	add(&s, 0, 256 * MIB, 0x7f0000000000, true); /* of ROM only what was taken from it counts */
	vm_resident_of(&s, &m, &r);
	assert_true(!r.size && !r.rss && !r.huge && r.swap == 16 << 10 && r.ksm == 8 << 10);
	vm_slots_free(&s);
	assert_int_equal(vm_slots_guess(&m, 1536 * MIB, &s, &err), 0);
	assert_int_equal(s.n, 2);
	assert_true(s.slot[0].hva == 0x7f0040000000);
	vm_slots_free(&s);
	assert_int_equal(vm_slots_guess(&m, 4096 * MIB, &s, &err), -ENOENT);
	vm_mappings_free(&m);
	assert_int_equal(vm_mappings_parse("0-0 rw-p\n", 9, &m, &err), -EPROTO);
}

static void test_counters(void **state)
{
	struct kvm_stats a, b;

	(void)state;
	memset(&a, 0xff, sizeof(a)); /* nothing is known */
	assert_int_equal(kvm_mapped_bytes(&a), 0);
	a = (struct kvm_stats){.pages_4k = 3, .pages_2m = 2, .pages_1g = 1};
	assert_true(kvm_mapped_bytes(&a) == 3 * 4096 + 4 * MIB + (1ull << 30));
	a = (struct kvm_stats){.pf_taken = 10, .pf_emulate = 2};
	b = (struct kvm_stats){.pf_taken = 17, .pf_emulate = 5};
	assert_int_equal(kvm_violations(&a, &b), 4);
	b.pf_emulate = 50;
	assert_int_equal(kvm_violations(&a, &b), 0);
	a.pf_emulate = b.pf_emulate = UINT64_MAX; /* a kernel that does not tell them apart */
	assert_int_equal(kvm_violations(&a, &b), 7);
	assert_ptr_equal(kvm_stat_by_name(&a, "pf_taken"), &a.pf_taken);
	assert_null(kvm_stat_by_name(&a, "pf"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mtree),	cmocka_unit_test(test_mtree_hostile),
		cmocka_unit_test(test_gpa2hva),	cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_add_refuses), cmocka_unit_test(test_smaps),
		cmocka_unit_test(test_counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
