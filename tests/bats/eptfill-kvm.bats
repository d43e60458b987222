#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# eptfill on a real KVM: one lab host, in which eptfill-lab does all of it; the tests look at what it saw.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab,long

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export seen=$BATS_FILE_TMPDIR/seen size=160
	tests/lab/build 3>&-
	tests/lab/build-host 6.12 3>&-
	tests/lab/run kvm --mem 2G --timeout 1200 --out "$seen" -- tests/bats/helpers/eptfill-lab "$seen" ${size}M 3>&-
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
}

# A file of the host's, for a test that fails.
show() {
	tail -n 20 "$seen/$1"* >&2
}

get() { # FILE EXPRESSION
	jq -r "$2" <"$seen/$1"
}

# Pages that a guest wrote.
touched() {
	sed -n 's/^memtouch: \([0-9]*\) pages.*/\1/p' "$seen/$1.touch"
}

violations() { # between two readings: NAME
	echo $(($(get "$1.after" '.pf_taken - .pf_emulate') - $(get "$1.before" '.pf_taken - .pf_emulate')))
}

@test "without a fill, each entry costs a violation" {
	local entries
	show none
	entries=$(($(get none.after .pages_4k) - $(get none.before .pages_4k)))
	[ "$entries" -gt 1000 ] # the rest its kernel has touched while it booted, at the same price
	[ "$(violations none)" -ge "$entries" ]
	[ "$(get none.after '.pf_taken - .pf_emulate')" -ge "$(get none.after .pages_4k)" ]
	assert_equal "$(cat "$seen/none.status")" 1
	grep -q 'guest: no: ' "$seen/none.verify"
}

@test "after a fill: RES is the memory's size, the entries cover all, and nothing is left to violate" {
	show fill
	assert_equal "$(cat "$seen/fill.status")" 0
	for g in a b; do
		show $g
		assert_equal "$(get $g.before '.resident_bytes >= .memory_bytes, .mapped_bytes >= .slots_bytes, .coverage_percent == 100' | xargs)" "true true true"
		assert_equal "$(get $g.before .pages_2m)" 0
		[ "$(touched $g)" -gt $((size * 100)) ]
		assert_equal "$(violations $g)" 0
		assert_equal "$(get $g.verify '.violations, .coverage_percent == 100, .status' | xargs)" "0 true 0"
		assert_equal "$(cat "$seen/$g.status")" 0
	done
	# Before it, not all of it was there: what its kernel had touched while it booted.
	[ "$(get a.empty .mapped_bytes)" -lt "$(get a.empty .slots_bytes)" ]
}

@test "a plan touches nothing" {
	show plan
	grep -q 'second level: by 1 vCPUs' "$seen/plan"
	grep -q 'guest 0x100000 host 0x[0-9a-f]* .* ram pc.ram' "$seen/plan"
}

@test "killed by SIGKILL in the middle of it: the guest goes on" {
	show kill
	assert_equal "$(cat "$seen/kill" | xargs)" "killed 137 pong killed 137 pong killed 137 pong"
}

@test "SIGINT: a summary, threads let go, status 130" {
	show interrupt
	grep -q '^status 130$' "$seen/interrupt"
	grep -q 'host memory' "$seen/interrupt"
	grep -q '^pong$' "$seen/interrupt"
	assert_equal "$(sort -u "$seen/tracers" | xargs)" "TracerPid: 0"
}

@test "without a monitor: found by its size, and by what KVM has" {
	show pid
	assert_equal "$(cat "$seen/pid.status")" 0
	assert_equal "$(get pid '.second_done, .second_bytes >= .memory_bytes' | xargs)" "true true"
	assert_equal "$(cat "$seen/pid.ping")" pong
}

@test "watch: a reset is named, and filled again" {
	tests/lab/run kvm --mem 2G --timeout 900 --out "$seen" -- tests/bats/helpers/eptfill-watch-lab "$seen" ${size}M 3>&-
	show watch
	run -0 jq -r 'select(.event == "undone") | .cause' "$seen/watch"
	assert_line --partial 'reset'
	run -0 jq -r 'select(.event == "filled") | .coverage_percent == 100' "$seen/watch"
	assert_equal "${lines[-1]}" true
	assert_equal "$(cat "$seen/watch.status")" 143
}

@test "run: pc and q35 are filled before the guest's kernel starts, and after the firmware's memslots" {
	for machine in pc q35; do
		show run-$machine
		assert_regex "$(cat "$seen/run-$machine.log")" 'eptfill: [0-9]+ MiB mapped: host memory'
		assert_equal "$(get run-$machine.verify '.violations, .coverage_percent == 100' | xargs)" "0 true"
		assert_equal "$(cat "$seen/run-$machine.status")" 0
		[ "$(touched run-$machine)" -gt $((size * 100)) ]
	done
}

@test "huge pages of a pool are mapped as huge pages" {
	show huge
	assert_equal "$(cat "$seen/huge.status")" 0
	[ "$(get huge .pages_2m)" -ge $((size / 2 - 2)) ]
	assert_equal "$(get huge '.mapped_bytes >= .slots_bytes')" true
}

@test "the kernel before 6.11: host memory, said so, status 1" {
	tests/lab/build-host 6.1 3>&-
	run -0 tests/lab/run kvm --kernel 6.1 -- sh -c '
		tests/lab/vm start --dir /tmp/old --mem 128M --timeout 240 >&2 || exit 4
		'"${O:-build}"'/bin/eptfill fill qmp:/tmp/old/vm.qmp; echo "status $?"
		'"${O:-build}"'/bin/eptfill fill -q --host-only qmp:/tmp/old/vm.qmp; echo "status $?"
		'"${O:-build}"'/bin/eptfill stat --json qmp:/tmp/old/vm.qmp'
	assert_line --partial 'has no KVM_PRE_FAULT_MEMORY (Linux 6.11): host memory only'
	assert_line 'status 1'
	assert_line 'status 0'
	assert_equal "$(grep '^{' <<<"$output" | jq '.resident_bytes >= .memory_bytes')" true
}

@test "the bench's table, of guests of 512 MiB" {
	run -0 bench/eptfill
	echo "$output" >&3
}
