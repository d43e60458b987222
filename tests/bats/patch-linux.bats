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
		tests/lab/vm start --dir $dir --mem 224M --timeout 200
		vm=$(echo /sys/kernel/debug/kvm/"$(tests/lab/vm pid --dir $dir)"-*)
		touch_it "$1" 112M
	}
	touch_it() { # NAME SIZE
		local taken mapped
		taken=$(cat "$vm/pf_taken") mapped=$(cat "$vm/pages_4k")
		tests/lab/vm sh --dir $dir memtouch "$2"
		echo "$1 violations $(($(cat "$vm/pf_taken") - taken)) pages $(cat "$vm/pages_4k")" \
			"more $(($(cat "$vm/pages_4k") - mapped)) runs $(cat "$vm/prefill_runs")" \
			"filled $(cat "$vm/prefill_entries")"
	}

	uname -r
	begin on
	# A dirty log: nothing may be filled, or all would be dirty.
	filled=$(cat "$vm/prefill_entries") runs=$(cat "$vm/prefill_runs")
	"$O/lab/bin/ask" qmp $dir/vm.mon '{"execute":"calc-dirty-rate","arguments":{"calc-time":60,"mode":"dirty-bitmap"}}'
	while [ "$(cat "$vm/prefill_runs")" = "$runs" ]; do
		tests/lab/vm sh --dir $dir memtouch 4M >/dev/null
	done
	echo "logged filled $(($(cat "$vm/prefill_entries") - filled))"
	"$O/lab/bin/ask" qmp $dir/vm.mon '{"execute":"query-dirty-rate"}'
	tests/lab/vm stop --dir $dir

	echo 0 >$param/prefill_settle_ms
	begin at-once
	tests/lab/vm stop --dir $dir

	echo 0 >$param/prefill_on_fault
	begin off
	# And of a running guest.
	echo 1 >$param/prefill_on_fault
	tests/lab/vm sh --dir $dir memtouch 1M
	touch_it later all
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
	export O=${O:-build}
	run -0 tests/lab/run kvm --kernel "$1" --modules "$modules" --module-param 'kvm prefill_on_fault=1' \
		--timeout 400 -- bash -c "$(declare -f in_host); in_host"
	echo "$output" | sed 's/^/# /' >&3
	local pages=$((224 * 256))
	# Off: one for each page that had not been used yet.
	[ "$(figure off more)" -gt 5000 ]
	[ "$(figure off violations)" -ge "$(figure off more)" ]
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
	assert_line --partial '"status": "measuring"'
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
