#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab,long
# cardshare with five stock guests on a real KVM at once, two over vhost-vsock, three over ivshmem-doorbell, whose device is
# unplugged under one. One boot of a host, in setup_file; each test looks at a part of what helpers/card-in-lab did there.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	local got=$BATS_FILE_TMPDIR/got
	mkdir -p "$got"
	tests/lab/card build
	tests/lab/run kvm --cpus 1 --mem 4G --timeout 1500 --boot-timeout 240 --out "$got" -- tests/bats/helpers/card-in-lab "$got" >"$got/log" 2>&1 3>&- || {
		tail -n 50 "$got/log" "$got"/hotplug "$got"/boot.* "$got"/vectors.* >&3
		return 1
	}
}

setup() {
	got=$BATS_FILE_TMPDIR/got
}

@test "lab: all five compute at once, and meanwhile a program in each, which knows only SDF, gets the published results" {
	run -0 jq -r '[.vms[] | select(any(.links[]; .app == "sdf-steady")) | .name] | join(" ")' "$got/during"
	assert_output 'v1 v2 r1 r2 r3'
	for name in v1 v2 r1 r2 r3; do
		run -0 cat "$got/vectors.$name"
		assert_output 'status 0'
		run -0 cat "$got/end.$name"
		assert_line 'status 0'
		assert_line --regexp '^gcm [0-9]+ done [0-9]+ unknown 0 .* failed 0 wrong 0 gap '
		echo "# $name: ${lines[-1]}" >&3
	done
}

@test "lab: over vhost-vsock, with nothing to be configured in the guest: SDF, OpenSSL, pipelines, the published results" {
	run -0 cat "$got/check.v1"
	assert_output --regexp '^card-check: [0-9]+ ok$'
	run -0 jq -rs '.[].way' "$got/speed.v1"
	assert_line vsock:2:7073
	run -0 jq -e '.vms[] | select(.name == "v1") | .requests > 1000' "$got/after"
	# sdf-app asks for a key that there is not.
	run -0 jq -es 'all(.denied == null or .index == 77)' "$got/audit"
}

@test "lab: the same over ivshmem-doorbell beside it, with interrupts of the UIO module" {
	run -0 cat "$got/check.r1"
	assert_output --regexp '^card-check: [0-9]+ ok$'
	run -0 jq -rs '.[].way' "$got/speed.r1"
	assert_line --regexp '^ivshmem:0000:01:00.0,queue=0 \(MSI-X by /dev/uio[0-9]+\)$'
}

@test "lab: a CID that the configuration does not have is refused, and that is said" {
	run -0 cat "$got/stranger"
	assert_line --partial 'cardshare: random: open vsock:2:7073: the daemon cut the link (see its log)'
	assert_equal "$(grep -c '^status 3$' "$got/stranger")" 2
	run -0 grep -c 'vsock:66:[0-9]*: no VM of the configuration has this CID' "$got/daemon"
}

@test "lab: one thread, whatever comes" {
	run -0 sort -u "$got/threads"
	assert_output 1
}

@test "lab: a device that is unplugged under a program, and plugged in again: nothing failed, nothing wrong" {
	run -0 cat "$got/hotplug"
	assert_equal "$(grep -c '^gcm .* failed 0 wrong 0 gap ' "$got/hotplug")" 2
	assert_equal "$(grep -c '^status 0$' "$got/hotplug")" 2
	assert_line 'rmmod 0'
	refute_line --regexp 'BUG|WARNING|Oops|Bad page'
	# While it was away, there was none.
	run -1 grep -E '^0000:.*0000:01:00.0' "$got/hotplug"
	assert_equal "$(grep -cE '^0000:00:00.0' "$got/hotplug")" 2
}
