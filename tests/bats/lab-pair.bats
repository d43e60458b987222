#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The ground that the migration tests stand on: pairs that start, keep their TPM in use, move without
# us, and are whole where they arrive.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	tests/lab/build 3>&-
	[ -x "${O:-build}/bin/vtpmtest" ] || skip "vtpmtest is not built"
	export ASK=$PWD/${O:-build}/lab/bin/ask
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	# Short: the name of a unix socket has 107 bytes.
	dir=$(mktemp -d /tmp/lab.XXXXXX)
}

teardown() {
	tests/lab/pair stop --dir "$dir/a" 2>/dev/null || true
	tests/lab/pair stop --dir "$dir/b" 2>/dev/null || true
	rm -rf "$dir"
}

moves_whole() { # KIND MODE
	tests/lab/pair start --kind "$1" --dir "$dir/a" --mode "$2"
	sleep 1
	run --separate-stderr tests/lab/plain-migrate --dir "$dir/a" --to "$dir/b" --check
	echo "# $output"
	assert_success
	# shellcheck disable=SC2154 # bats'
	[[ $stderr == *"memcheck: good: 8192 of 8192 pages"* ]]
	[ "$(jq -r .kind <<<"$output")" = "$1" ]
	[ "$(jq '.vm.downtime_ms > 0' <<<"$output")" = true ]
	sleep 1
	run tests/lab/pair ctl --dir "$dir/b" vm stop-test
	assert_success
	assert_output --partial "lost 0 wrong 0"
}

@test "swtpm: a pair under load moves whole, hashes" {
	moves_whole swtpm hash
}

@test "swtpm: a pair under load moves whole, with open sequences" {
	moves_whole swtpm sequence
}

@test "vm: a pair under load moves whole, hashes" {
	moves_whole vm hash
}

@test "vm: a pair under load moves whole, with open sequences" {
	moves_whole vm sequence
}

@test "vm: the vTPM's machine may be away for two seconds, and no call is lost or done twice" {
	tests/lab/pair start --kind vm --dir "$dir/a" --no-test --writer 0
	before=$(tests/lab/pair ctl --dir "$dir/a" vtpm 'sh cat /proc/uptime')
	tests/lab/pair ctl --dir "$dir/a" vm 'start-test --mode,hash,--rate,50,/dev/tpm0'
	"$ASK" qmp "$dir/a/vtpm.mon" '{"execute":"stop"}' >/dev/null
	sleep 2
	"$ASK" qmp "$dir/a/vtpm.mon" '{"execute":"cont"}' >/dev/null
	sleep 1
	[ "$before" != "$(tests/lab/pair ctl --dir "$dir/a" vtpm 'sh cat /proc/uptime')" ]
	run tests/lab/pair ctl --dir "$dir/a" vm stop-test
	assert_success
	assert_output --partial "lost 0 wrong 0"
	run tests/lab/pair ctl --dir "$dir/a" vm front
	assert_output --regexp '^[0-9]+ commands, [0-9]{3,} repeated'
}

@test "the pair file names what the receiver runs, in lines that libinih can read" {
	tests/lab/pair start --kind vm --dir "$dir/a" --no-test --writer 0
	. "$dir/a/pair.env"
	run tests/lab/pair receiver-file --dir "$dir/a"
	assert_success
	# shellcheck disable=SC2154
	assert_line "vm-uuid = $vm_uuid"
	# shellcheck disable=SC2154
	assert_line "vtpm-uuid = $vtpm_uuid"
	# shellcheck disable=SC2016
	assert_line 'qmp = ${dir}/vtpm.qmp'
	assert_output --partial "-incoming defer"
	[ "$(awk 'length($0) > 199' <<<"$output")" = "" ]
	refute_output --partial "$dir"
}

@test "stop ends what was started, and nothing else" {
	tests/lab/pair start --kind swtpm --dir "$dir/a" --no-test --writer 0
	pid=$(cat "$dir/a/vm.pid")
	sleep 100 3>&- &
	echo $! >"$dir/a/vtpm.pid"
	run tests/lab/pair stop --dir "$dir/a"
	assert_success
	kill $!
	run grep -s '^State:.[^Z]' "/proc/$pid/status"
	assert_failure
}

@test "a guest that cannot become ready is reported, and not left behind" {
	run tests/lab/pair start --kind swtpm --dir "$dir/a" --test --nonsense
	assert_failure 4
	assert_output --partial "the guest failed"
	[ ! -e "$dir/a/vm.pid" ]
}
