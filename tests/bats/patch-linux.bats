#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# lib/patches/linux: a KVM that fills all second-level entries at the first violation, in a real KVM, by its counters.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	tests/lab/build
}

# In the host. Pages of 4 KiB, so that there are many.
in_host() {
	set -eu
	param=/sys/module/kvm/parameters
	dir=/tmp/guest
	echo never >/sys/kernel/mm/transparent_hugepage/enabled

	begin() { # NAME
		tests/lab/vm start --dir $dir --mem 160M --timeout 200
		vm=$(echo /sys/kernel/debug/kvm/"$(tests/lab/vm pid --dir $dir)"-*)
		before=$(cat "$vm/pf_taken")
		tests/lab/vm sh --dir $dir memtouch 32M
		tell "$1" "$before"
	}
	tell() { # NAME PF_TAKEN-BEFORE
		echo "$1 violations $(($(cat "$vm/pf_taken") - $2)) pages $(cat "$vm/pages_4k") runs $(cat "$vm/prefill_runs")" \
			"filled $(cat "$vm/prefill_entries")"
	}

	uname -r
	begin on
	# A dirty log: nothing may be filled, or all would be dirty.
	filled=$(cat "$vm/prefill_entries")
	"$O/lab/bin/ask" qmp $dir/vm.mon '{"execute":"calc-dirty-rate","arguments":{"calc-time":2,"mode":"dirty-bitmap"}}'
	tests/lab/vm sh --dir $dir memtouch 4M
	sleep 2
	echo "logged filled $(($(cat "$vm/prefill_entries") - filled))"
	tests/lab/vm stop --dir $dir

	echo 0 >$param/prefill_settle_ms
	begin at-once
	tests/lab/vm stop --dir $dir

	echo 0 >$param/prefill_on_fault
	begin off
	# And of a running guest.
	echo 1 >$param/prefill_on_fault
	tests/lab/vm sh --dir $dir memtouch 1M
	before=$(cat "$vm/pf_taken")
	tests/lab/vm sh --dir $dir memtouch all
	tell later "$before"
	tests/lab/vm stop --dir $dir
	dmesg | grep -E 'BUG|WARNING|Oops' && return 1
	echo "all of it"
}

figure() { # LINE NAME
	sed -n "s/^$1 .*\\b$2 \\([0-9]*\\).*/\\1/p" <<<"$output"
}

fills() { # SERIES
	local modules
	modules=$(tests/lab/patch-linux "$1" 3>&-)
	export -f in_host
	export O=${O:-build}
	run -0 tests/lab/run kvm --kernel "$1" --modules "$modules" --module-param 'kvm prefill_on_fault=1' \
		--timeout 400 -- bash -c in_host
	echo "$output" | sed 's/^/# /' >&3
	local pages=$((160 * 256))
	# Off: one for each page, of 8192; some had been used already.
	[ "$(figure off violations)" -gt 5000 ]
	[ "$(figure off filled)" = 0 ]
	[ "$(figure off pages)" -lt $pages ]
	for case in on at-once later; do
		# What is not memory is mapped by pages that have no slot, or that nobody can write.
		[ "$(figure $case violations)" -le 16 ]
		[ "$(figure $case pages)" -ge $pages ]
		[ "$(figure $case filled)" -ge $pages ]
	done
	[ "$(figure on runs)" -le "$(figure at-once runs)" ]
	[ "$(figure logged filled)" -lt 1024 ]
	assert_line "all of it"
}

@test "6.12: the first violation fills all; violations afterwards, pages, what was filled" {
	fills 6.12
}

# bats test_tags=long
@test "6.1: the first violation fills all; violations afterwards, pages, what was filled" {
	fills 6.1
}

@test "6.12: the modules are for the kernel that the lab boots, Intel's, too" {
	local modules release
	modules=$(tests/lab/patch-linux 6.12 3>&-)
	tests/lab/build-host 6.12
	release=$(cat "${O:-build}/lab-host/6.12/release")
	for module in kvm kvm-amd kvm-intel; do
		[[ "$(/sbin/modinfo -F vermagic "$modules/$module.ko")" = "$release SMP "* ]]
	done
	/sbin/modinfo -p "$modules/kvm.ko" | grep '^prefill_on_fault:'
}
