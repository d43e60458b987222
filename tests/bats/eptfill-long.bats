#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# eptfill on a real KVM, at length: more vCPUs, more injections, memslots that go while it fills, huge pages,
# lockdown, old kernels, large guests.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab,long

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export seen=$BATS_FILE_TMPDIR/seen size=160
	tests/lab/build 3>&-
	tests/lab/build-host 6.12 3>&-
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	. tests/bats/helpers/eptfill.bash
}

@test "four vCPUs, a thousand injected stops; a process that SIGSTOP holds is filled, and stays stopped" {
	lab_parts many 2G 900 many
	show many/many
	assert_equal "$(get many/many '.by_vcpu | length')" 4
	assert_equal "$(get many/many '[.by_vcpu[].bytes > 0] | all')" true
	assert_filled many/many
	assert_undisturbed many 1000
	show many/stopped
	assert_equal "$(cat "$seen/many/stopped.status")" 0
	assert_equal "$(get many/stopped '.second_done')" true
	run sed -n '/^kvm-/d; / - /p' "$seen/many/stopped.threads" # nobody runs or sleeps but KVM's own
	assert_output ""
	assert_equal "$(cat "$seen/many/stopped.ping")" pong
	show many/asleep
	show many/awake
	assert_equal "$(cat "$seen/many/asleep.status" "$seen/many/awake.status" | xargs)" "0 0"
	get many/many .by_vcpu >&3
}

@test "resets and SIGKILLs at any moment of a fill: the VM goes on each time" {
	lab_parts storm 2G 900 storm
	show storm/storm
	assert_equal "$(cat "$seen/storm/storm")" pong
	[ "$(cat "$seen/storm/storm.killed")" -ge 5 ]
	assert_equal "$(cat "$seen/storm/storm.fill.status")" 0
	assert_filled storm/storm.last
	run grep -v ' - 0 ' "$seen/storm/storm.threads" # asleep or running, traced by nobody
	assert_output ""
}

@test "run, again and again: q35 and pc, one to four vCPUs" {
	lab_parts runs 2G 900 runs
	for i in 1 2 3 4 5 6 7 8 9; do
		show runs/run.$i
		assert_filled runs/run.$i
	done
}

@test "huge pages of a pool are mapped as huge pages; transparent ones that are split are named" {
	lab_parts huge 2G 900 huge
	show huge/huge
	assert_equal "$(cat "$seen/huge/huge.status")" 0
	[ "$(get huge/huge .pages_2m)" -ge $((size / 2 - 2)) ]
	assert_equal "$(get huge/huge '.mapped_bytes >= .slots_bytes')" true
	show huge/thp
	show huge/watch
	assert_equal "$(cat "$seen/huge/thp.status")" 0
	[ "$(get huge/thp .pages_2m)" -gt 40 ]
	assert_regex "$(get huge/undone.split .cause)" '^huge pages were split'
	[ ! -e "$seen/huge/watch.late" ]
}

@test "a kernel that is locked down: the monitor tells the counters, to watch, too" {
	lab_parts locked 2G 900 lockdown
	show locked/locked
	show locked/watch
	assert_filled locked/locked
	assert_equal "$(get locked/undone.reset .cause)" 'the VM was reset'
	[ ! -e "$seen/locked/watch.late" ]
	assert_equal "$(cat "$seen/locked/watch.status")" 143
}

@test "the kernel before 6.11: host memory, said so, status 1" {
	tests/lab/build-host 6.1 3>&-
	run -0 tests/lab/run kvm --kernel 6.1 -- sh -c '
		tests/lab/vm start --dir /tmp/old --mem 128M --timeout 240 >&2 || exit 4
		'"${O:-build}"'/bin/eptfill fill qmp:/tmp/old/vm.qmp; echo "status $?"
		'"${O:-build}"'/bin/eptfill fill -q --host-only qmp:/tmp/old/vm.qmp; echo "status $?"
		'"${O:-build}"'/bin/eptfill stat --json qmp:/tmp/old/vm.qmp
		'"${O:-build}"'/bin/eptfill watch qmp:/tmp/old/vm.qmp; echo "status $?"'
	assert_line --partial 'has no KVM_PRE_FAULT_MEMORY (Linux 6.11): host memory only'
	assert_line 'status 1'
	assert_line 'status 0'
	assert_line 'status 3'
	assert_equal "$(grep '^{' <<<"$output" | jq '.resident_bytes >= .memory_bytes')" true
}

@test "two guests of 512 MiB, one of 3.5 GiB: with a fill no violation, without one at least one a mapping" {
	run -0 env ASK_TIMEOUT=600 tests/lab/run kvm --mem 6G --timeout 1200 -- sh -c '
		tests/lab/fill-table 512M none eptfill && GUESTS=a tests/lab/fill-table 3584M none eptfill'
	echo "$output" >&3
	assert_equal "${#lines[@]}" 6
	assert_equal "$(jq -s 'map(select(.row == "none") | .violations >= .entries and .entries > 50000) | all' <<<"$output")" true
	assert_equal "$(jq -s 'map(select(.row == "eptfill") | .violations == 0 and .resident_bytes >= .memory_bytes and .mapped_bytes >= .slots_bytes) | all' <<<"$output")" true
}

@test "the bench's table, of guests of 512 MiB" {
	run -0 bench/eptfill
	echo "$output" >&3
}
