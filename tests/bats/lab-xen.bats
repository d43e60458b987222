#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The lab's Xen: a real hypervisor, a command in its dom0 behaves as outside, a PVH pair works, and Xen's own
# tools move it between two hosts.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	dir=$BATS_TEST_TMPDIR
	hosts=
}

teardown() {
	[ -z "$hosts" ] || { tests/lab/run stop --dir "$hosts" && rm -rf "$hosts"; }
}

start_hosts() { # KIND
	hosts=$(mktemp -d /tmp/lx.XXXXXX) # short: the name of a unix socket has 107 bytes
	tests/lab/run start "$1" --dir "$hosts" 3>&-
}

on() { # HOST COMMAND…
	local host=$1
	shift
	tests/lab/run on --dir "$hosts" "$host" -- "$@" 3>&-
}

# Programs whose registers are not their own under this emulation fail now and then: forty in a row do not.
# bats test_tags=long
@test "dom0: status, output, input, Xen's tools; a PVH pair to READY, its TPM used, its memory whole" {
	start_hosts xen
	run -7 on a sh -c 'cat; exit 7' <<<"some input"
	assert_output "some input"
	run on a xl info
	assert_line --regexp '^xen_version +: 4\.'
	assert_line --regexp '^virt_caps +: .*hvm.* hap'
	run -124 tests/lab/run on --dir "$hosts" --timeout 1 a -- sleep 100
	run -2 on c true

	on a tests/lab/xen-pair start --dir /tmp/p --timeout 300
	run on a xl list
	assert_line --regexp '^pair +[0-9]+ +9[56] '
	assert_line --regexp '^pair-vtpm +[0-9]+ +6[34] '
	run -0 on a tests/lab/xen-pair ctl --dir /tmp/p vm writer
	assert_output --partial "memwriter: pass"
	run -0 on a sh -c 'for i in $(seq 40); do seq 3000 | md5sum; done | sort -u | wc -l'
	assert_output 1
	run -0 on a tests/lab/xen-pair ctl --dir /tmp/p vm stop-test
	assert_output --partial "lost 0 wrong 0"
	# shellcheck disable=SC2016 # dom0's
	run -0 on a sh -c 'xl pause pair && tests/lab/xen-pair dump --dir /tmp/p vm /tmp/dump &&
		. /tmp/p/pair.env && "${O:-build}/lab/bin/memcheck" --nonce "$nonce" /tmp/dump'
	assert_output --partial "memcheck: good: 4096 of 4096 pages"
}

@test "bad words are refused before anything starts" {
	run -2 tests/lab/run xen --mem 100M -- true
	run -2 tests/lab/run xen
	run -2 tests/lab/run start xen
	run -2 tests/lab/run on a -- true
	run -3 tests/lab/xen-pair start --dir "$dir/p"
	run -4 tests/lab/run on --dir "$dir" a -- true
}

# bats test_tags=long
@test "xl migrate moves the VM, and then its vTPM, between two hosts; the TPM is in use throughout" {
	start_hosts xen-pair
	run -5 on a tests/lab/run on b -- sh -c 'hostname; exit 5'
	assert_output b
	on a tests/lab/xen-pair start --dir /tmp/p --timeout 300
	run -0 on a tests/lab/xen-pair plain-migrate --dir /tmp/p --to b
	echo "# $output" >&3
	assert_output --regexp '"total_ms":[0-9]+'
	[ "$(jq '.vm_ms > 0 and .vm_downtime_us > 0 and .vm_downtime_us < 1000 * .vm_ms
		and .vtpm_downtime_us > 0 and .vtpm_downtime_us < 1000 * .vtpm_ms' <<<"${lines[-1]}")" = true ]
	run on a xl list
	refute_output --partial pair
	run -0 on b tests/lab/xen-pair ctl --dir /tmp/p vm stop-test
	assert_output --partial "lost 0 wrong 0"
}
