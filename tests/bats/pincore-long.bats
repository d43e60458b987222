#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# pincore for a minute each way: four vCPUs, an iothread and vhost in a host of four CPUs, each of them busy; and births.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab,long

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	. tests/bats/helpers/pincore.bash
	in_lab pincore-minute 900 --cpus 4
}

setup() {
	. "$BATS_TEST_DIRNAME/helpers/pincore.bash"
}

@test "lab: a minute unpinned, and they move; a minute pinned, and none does" {
	echo "# unpinned: $(jq -s '.[-1].migrations' "$got/unpinned") migrations, pinned: $(jq -s '.[-1].migrations' "$got/pinned")" >&3
	summary unpinned '.migrations > 0 and .source == "perf" and .took_us >= 60000000'
	summary pinned '.migrations == 0 and .astray == 0 and .threads >= 10 and .exit_status == 0 and .took_us >= 60000000'
}

@test "lab: KVM entered each pinned vCPU on its own CPU only" {
	jq -r 'select(.role == "vcpu") | "\(.tid) \(.cpus)"' "$got/shown" | sort >"$got/vcpus-pinned"
	run -0 diff "$got/vcpus-pinned" <(cut -d' ' -f1,2 "$got/pinned-entries" | sort)
	assert_equal "$(wc -l <"$got/vcpus-pinned")" 4
	assert [ "$(cut -d' ' -f1 "$got/unpinned-entries" | sort | uniq -d | wc -l)" -gt 0 ]
}

@test "lab: every thread has a role and its CPUs" {
	for role in main vcpu iothread rcu nx-lpage pit vhost; do
		# shellcheck disable=SC2016 # jq's
		run -0 jq -es --arg r "$role" '[.[] | select(.role == $r) | .cpus] | length > 0 and all(test("^[0-3]$"))' "$got/shown"
	done
}

@test "lab: vCPUs plugged in and workers are pinned as they are born, and none ran elsewhere after" {
	echo "# born to pinned, us: $(jq -sc 'map(select(.event == "born") | .after_us) | sort' "$got/events")" >&3
	run -0 jq -es '[.[] | select(.event == "born")] | length >= 4 and all(.after_us > 0)' "$got/events"
	run -0 jq -es '[.[] | select(.role == "vcpu")] | length == 6 and all(.cpus | test("^[0-3]$"))' "$got/grown"
	summary after '.migrations == 0 and .astray == 0'
}
