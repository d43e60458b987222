#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab
# One daemon, five stock guests on a real KVM at once: three over ivshmem-doorbell, two over vhost-vsock.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	local got=$BATS_FILE_TMPDIR/got
	mkdir -p "$got"
	tests/lab/card build
	tests/lab/run kvm --cpus 1 --mem 4G --timeout 1500 --boot-timeout 240 --out "$got" -- tests/bats/helpers/card-in-lab whole "$got" >"$got/log" 2>&1 3>&- || {
		tail -n 50 "$got/log" "$got"/boot.* "$got"/vectors.* >&3
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

@test "lab: the daemon has one thread, then and afterwards" {
	run -0 sort -u "$got/threads"
	assert_output 1
	run -0 jq -es 'all(.denied == null or .index == 77)' "$got/audit"
}
