#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# eptfill on a real KVM: one lab host, in which eptfill-lab does all of it; the tests look at what it saw.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export seen=$BATS_FILE_TMPDIR/seen size=160
	. tests/bats/helpers/eptfill.bash
	tests/lab/build 3>&-
	tests/lab/build-host 6.12 3>&-
	lab_parts one 2G 600 base watched refusals run
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	. tests/bats/helpers/eptfill.bash
}

@test "without a fill, each entry costs a violation" {
	local entries
	show one/none
	entries=$(($(get one/none.after .pages_4k) - $(get one/none.before .pages_4k)))
	[ "$entries" -gt 1000 ] # the rest its kernel has touched while it booted, at the same price
	[ "$(violations one/none)" -ge "$entries" ]
	[ "$(get one/none.after '.pf_taken - .pf_emulate')" -ge "$(get one/none.after .pages_4k)" ]
	assert_equal "$(cat "$seen/one/none.status")" 1
	grep -q 'guest: no: .* of its host memory are not there' "$seen/one/none.verify"
}

@test "after a fill: RES is the memory's size, the entries cover all, and nothing is left to violate" {
	show one/a
	assert_equal "$(cat "$seen/one/fill.status")" 0
	assert_equal "$(get one/a.before .pages_2m)" 0
	assert_filled one/a
	# Before it, not all of it was there: what its kernel had touched while it booted.
	[ "$(get one/a.empty .mapped_bytes)" -lt "$(get one/a.empty .slots_bytes)" ]
}

@test "each vCPU does its part, and their parts are all of it" {
	show one/a
	assert_equal "$(get one/a '.by_vcpu | length')" 2
	assert_equal "$(get one/a '[.by_vcpu[].bytes > 0] | all')" true
	assert_equal "$(get one/a '([.by_vcpu[].bytes] | add) == .second_bytes')" true
}

@test "a vCPU that is switched off in the guest, and a VM that is paused" {
	show one/off
	assert_equal "$(cat "$seen/one/off" "$seen/one/on" | xargs)" "0 0-1"
	for how in offline paused; do
		show one/$how
		assert_equal "$(cat "$seen/one/$how.status")" 0
		assert_equal "$(get one/$how '[.by_vcpu[].bytes > 0] | all')" true
	done
	grep -q '"paused"' "$seen/one/paused.state"
	assert_equal "$(cat "$seen/one/paused.ping")" pong
}

@test "injected stops: a guest that sums its memory up sees nothing wrong, loses no tick; its threads are as they were" {
	assert_undisturbed one 200
}

@test "a plan touches nothing" {
	show one/plan
	grep -q 'second level: by 2 vCPUs' "$seen/one/plan"
	grep -q 'guest 0x100000 host 0x[0-9a-f]* .* ram pc.ram' "$seen/one/plan"
}

@test "killed by SIGKILL in the middle of it: the guest goes on" {
	show one/kill
	assert_equal "$(cat "$seen/one/kill" | xargs)" "killed 137 pong killed 137 pong killed 137 pong"
	run -0 diff "$seen/one/threads.before" "$seen/one/threads.after"
}

@test "SIGINT: a summary, threads let go, status 130" {
	show one/interrupt
	grep -q '^status 130$' "$seen/one/interrupt"
	grep -q 'host memory' "$seen/one/interrupt"
	grep -q '^pong$' "$seen/one/interrupt"
}

@test "without a monitor: found by its size, and by what KVM has" {
	show one/pid
	assert_equal "$(cat "$seen/one/pid.status")" 0
	assert_equal "$(get one/pid '.second_done, .second_bytes >= .memory_bytes' | xargs)" "true true"
	assert_equal "$(cat "$seen/one/pid.ping")" pong
}

@test "watch: a reset, a migration, swapping, KSM and a balloon are named, and filled again when they are over" {
	show one/watch
	show one/undone
	[ ! -e "$seen/one/watch.late" ]
	assert_equal "$(get one/undone.reset .cause)" 'the VM was reset'
	assert_equal "$(get one/undone.migration .cause)" 'a migration logs its dirty pages'
	assert_regex "$(get one/undone.swap .cause)" '^[0-9.]+ [KM]iB of it were swapped out$'
	assert_regex "$(get one/undone.ksm .cause)" '^KSM merged [0-9.]+ [KM]iB of it$'
	assert_regex "$(get one/undone.balloon .cause)" 'balloon'
	assert_equal "$(cat "$seen/one/watch.status")" 143
	grep -q 'not refilled: a migration logs its dirty pages' "$seen/one/watch.err"
	grep -q 'not refilled: its balloon holds' "$seen/one/watch.err"
}

@test "a balloon: refused until it is deflated, named by verify; then all is filled again" {
	show one/balloon
	assert_equal "$(cat "$seen/one/balloon.fill.status")" 3
	assert_regex "$(cat "$seen/one/balloon.fill.err")" '^eptfill: fill guest: refused: its balloon holds 32.0 MiB.*; --force'
	[ "$(get one/balloon.after .mapped_bytes)" = "$(get one/balloon.before .mapped_bytes)" ]
	grep -q 'guest: no: .*: its balloon holds 32.0 MiB' "$seen/one/balloon.verify"
	assert_equal "$(get one/balloon.over .balloon_bytes)" 0
	assert_equal "$(cat "$seen/one/balloon.again.status")" 0
	assert_filled one/last
}

@test "what does not fit or would not stay is refused: one line, status 3, and nothing has changed" {
	local what
	for what in short node group pool reports merged; do
		show one/no.$what
		assert_equal "$what $(cat "$seen/one/no.$what.status")" "$what 3"
		assert_equal "$(cat "$seen/one/no.$what")" ""
		[ "$what" = node ] || assert_equal "$(wc -l <"$seen/one/no.$what.err")" 1
		# Rss moves by itself a little, by what QEMU does for the question.
		[ "$(($(get "one/no.$what.after" .resident_bytes) - $(get "one/no.$what.before" .resident_bytes)))" -lt $((1 << 20)) ]
	done
	grep -q 'host memory: .* more are needed, .* are available' "$seen/one/no.short.err"
	grep -q 'NUMA node 0, to which .* is bound: .* more are needed' "$seen/one/no.node.err"
	grep -q 'control group /sys/fs/cgroup/small: .* memory.max leaves' "$seen/one/no.group.err"
	grep -q 'pool of 2.0 MiB pages: 64 are needed, 8 are free' "$seen/one/no.pool.err"
	grep -q 'its guest reports free pages' "$seen/one/no.reports.err"
	grep -q 'KSM runs' "$seen/one/no.merged.err"
}

@test "a VM that ends in the middle: status 4" {
	show one/ended
	grep -q '^status 4$' "$seen/one/ended"
	grep -Eq 'gone|ended|No such process' "$seen/one/ended"
}

@test "another user's VM, and what is no VM: status 3" {
	show one/other
	show one/no-vm
	grep -q '^status 3$' "$seen/one/other"
	grep -q 'Permission denied' "$seen/one/other"
	grep -q '^status 3$' "$seen/one/no-vm"
	grep -q 'not a QEMU' "$seen/one/no-vm"
}

@test "without debugfs the monitor tells the counters" {
	show one/hidden
	assert_equal "$(cat "$seen/one/hidden.status" "$seen/one/hidden.verify.status" | xargs)" "0 0"
	assert_equal "$(get one/hidden '.mapped_bytes >= .slots_bytes')" true
	assert_equal "$(get one/hidden.verify '.coverage_percent == 100, .violations' | xargs)" "true 0"
}

@test "run: filled before the guest's kernel starts, and after the firmware's memslots" {
	show one/run
	assert_regex "$(cat "$seen/one/run.log")" 'eptfill: [0-9]+ MiB mapped: host memory'
	assert_filled one/run
}
