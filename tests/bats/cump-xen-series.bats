#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154,SC2030,SC2031,SC2016,SC2034 # set by helpers; the hosts' own
# On two Xen hosts: a pair that moves to and fro, again and again, while its vTPM is in use. CUMP_MOVES: how often.
bats_require_minimum_version 1.8.0
load helpers/cump-xen

# bats file_tags=lab,long

setup_file() {
	xen_setup_file --test --rate,5,--mode,sequence,/dev/tpm0
}

teardown_file() {
	xen_teardown_file
}

setup() {
	xen_setup
}

teardown() {
	stop_receiver
}

of() { # KEY: of the pair's own, out of the report
	jq ".$1" <<<"$output"
}

@test "moves to and fro in a row: memory equal each time, TPM's state right, nothing lost" {
	for nth in $(seq "${CUMP_MOVES:-10}"); do
		start_receiver -v
		policy=cump
		[ $((nth % 4)) -lt 2 ] || policy=independent
		move -v --verify --json --no-compress --policy $policy
		[ "$status" = 0 ] || echo "# $stderr" >&3
		assert_equal "$status" 0
		few_unlogged
		echo "# move $nth $policy: total $(of 'total_us / 1e6') s, downtime $(of 'downtime_us / 1e3') ms," \
			"skew $(of 'stop_skew_us / 1e3') ms, rounds $(of vm.rounds), resent $(of "vm.resent_pages + .vtpm.resent_pages")" >&3
		run cat "$d/receive.err"
		assert_line --partial "state of the VM is the source's"
		assert_line --partial "state of the vTPM is the source's"
		stop_receiver
		local from=$home
		moved
		assert_only_at "$home" "$from"
		assert_settled
	done
	run ctl vm stop-test
	echo "# vtpmtest: $output" >&3
	assert_success
	assert_output --partial "lost 0 wrong 0"
}
