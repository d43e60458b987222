#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# pincore auto in a host of two nodes with four CPUs each: what its page says of the choice. One boot of the host.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	. tests/bats/helpers/pincore.bash
	in_lab pincore-nodes 300 --cpus 8 --nodes 2
}

setup() {
	. "$BATS_TEST_DIRNAME/helpers/pincore.bash"
}

# cpus FILE ROLE: one a line
cpus() {
	jq -r --arg role "$2" 'select(.role == $role) | .cpus' "$got/$1"
}

@test "lab: each VM is put on the node where its memory is, and all of it" {
	for node in 0 1; do
		run -0 jq -rs '.[] | select(.schema == "util-vm/pincore/plan/1") | .why_memory' "$got/node$node"
		assert_output --regexp "^node $node holds"
		# shellcheck disable=SC2016 # jq's
		run -0 jq -es --argjson node $node '[.[] | .cpus // empty | tonumber] | length >= 6 and all(. >= $node * 4 and . < $node * 4 + 4)' "$got/node$node"
	done
}

@test "lab: a core for each vCPU, one for the emulator, one for the iothreads" {
	for node in 0 1; do
		run -0 cpus node$node vcpu
		assert_equal "${#lines[@]}" 2
		run -0 bash -c "jq -r 'select(.role == \"vcpu\" or .role == \"main\" or .role == \"iothread\") | .cpus' '$got/node$node' | sort -u | wc -l"
		assert_output 4
	done
}

@test "lab: busy CPUs are not for vCPUs" {
	run -0 cpus busy vcpu
	refute_output --regexp "^($(paste -sd'|' "$got/taken"))\$"
	for cpu in "${lines[@]}"; do
		assert [ "$cpu" -ge 4 ]
	done
}
