#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# pincore in a host with a real KVM: kernel helpers, vhost, partitions, interrupts, and the thesis's figure: a
# pinned vCPU does not move under load. One boot of the host; each part is a test. LAB_HOST_KERNEL=6.1: the same
# where vhost and nx-lpage are kernel threads and a cpuset write resets affinities.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	. tests/bats/helpers/pincore.bash
	in_lab pincore-in-lab 500 --kernel "${LAB_HOST_KERNEL:-6.12}"
}

setup() {
	. "$BATS_TEST_DIRNAME/helpers/pincore.bash"
}

# bats test_tags=lab
@test "lab: the same load, the same time: unpinned threads move, pinned ones never" {
	echo "# unpinned: $(jq -s '.[-1].migrations' "$got/unpinned") migrations, pinned: $(jq -s '.[-1].migrations' "$got/pinned")" >&3
	summary unpinned '.migrations > 0 and .source == "perf"'
	run -0 jq -es '[.[] | select(.role == "vcpu") | .migrations] | add > 0' "$got/unpinned"
	summary pinned '.migrations == 0 and .astray == 0 and .threads >= 8 and .exit_status == 0'
}

# bats test_tags=lab
@test "lab: KVM itself counted: unpinned vCPUs enter their guest on both CPUs, each pinned one on its own" {
	echo "# entries (TID CPU TIMES) unpinned: $(tr '\n' ';' <"$got/unpinned-entries") pinned: $(tr '\n' ';' <"$got/pinned-entries")" >&3
	run -0 awk '{ cpus[$1]++ } END { for (t in cpus) { n++; moved += cpus[t] > 1 } print n, (moved > 0) }' "$got/unpinned-entries"
	assert_output '2 1'
	# The CPU of each vCPU's thread as it was pinned is the only one.
	jq -r 'select(.role == "vcpu") | "\(.tid) \(.cpus)"' "$got/shown" | sort >"$got/vcpus-pinned"
	run -0 diff "$got/vcpus-pinned" <(cut -d' ' -f1,2 "$got/pinned-entries" | sort)
}

# bats test_tags=lab
@test "lab: KVM's own threads and vhost's are pinned with the others" {
	for role in main vcpu iothread rcu nx-lpage pit vhost; do
		run -0 jq -ers --arg r "$role" '[.[] | select(.role == $r) | .cpus] | length > 0 and all(test("^[01]$"))' "$got/shown"
	done
}

# bats test_tags=lab
@test "lab: a vCPU that is plugged in is pinned by watch at once" {
	run -0 jq -es '[.[] | select(.event == "born") | .threads] | add >= 1' "$got/events"
	run -0 jq -es '[.[] | select(.role == "vcpu")] | length == 3 and all(.cpus | test("^[01]$"))' "$got/plugged"
	summary after-plug '.astray == 0 and .migrations == 0'
}

# bats test_tags=lab
@test "lab: an isolated partition, interrupts off its CPU, and both undone" {
	run -0 cat "$got/partition"
	assert_output 'isolated'
	run -0 cat "$got/rest"
	assert_output '0'
	run -0 cat "$got/irqs-on-1"
	assert_output '' # none that can be moved
	run -0 cat "$got/stuck"
	assert_output --partial 'the kernel manages them'
	run -0 diff "$got/before" "$got/after"
}

# bats test_tags=lab
@test "lab: a partition that the kernel does not make is refused: 3, nothing is changed" {
	run -0 cat "$got/refused.status"
	assert_output 3
	run -0 cat "$got/refused"
	assert_output --partial 'isolate:'
	run -0 diff "$got/before" "$got/after-refusal"
}

# bats test_tags=lab
@test "lab: undo after the VM has gone: partition and record removed, interrupts back" {
	run -0 cat "$got/gone"
	assert_output ''
	run -0 diff "$got/machine-before" "$got/machine-after"
}

# bats test_tags=lab
@test "lab: without root and without rights, refused: 3" {
	run -0 cat "$got/nobody.status"
	assert_output 3
}
