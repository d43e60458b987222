#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr, kind and others are set by helpers
# To and fro, again and again, under load: whole each time, and nothing lost at the end. Figures are
# printed, not judged: a machine that others use cannot be held to them.

bats_require_minimum_version 1.8.0
load helpers/cump

# bats file_tags=lab,long

setup_file() {
	tests/lab/build 3>&-
}

setup() {
	cump_setup
	moves=${CUMP_MOVES:-20}
	run_number=0
}

teardown() {
	cump_teardown
}

# The most memory that sender and receiver ever held. Read into the hook's shell, whose parent they are.
write_deeds() {
	cat >"$d/send-deed" <<-END
		sed -n 's/^VmHWM:[[:space:]]*\\([0-9]*\\) kB/\\1/p' /proc/\$PPID/status >>'$d/memory'
	END
	cat >"$d/receive-deed" <<-END
		sed -n 's/^VmHWM:[[:space:]]*\\([0-9]*\\) kB/\\1/p' /proc/\$PPID/status >>'$d/memory'
		for f in '$run_dir'/*/vm.mon; do
			'$ask' qmp "\$f" '{"execute":"pmemsave","arguments":{"val":0,"size":201334784,"filename":"$d/dump"}}'
		done >/dev/null
	END
}

series() { # KIND MODE
	local n
	lab_pair "$1" "$home" --mode "$2"
	for n in $(seq "$moves"); do
		write_deeds
		write_pair_file
		start_receiver --debug-at "receive:prepared=. $d/receive-deed"
		move --json --debug-at "send:end=. $d/send-deed"
		[ "$status" = 0 ] || fail "move $n: $status $stderr"
		echo "$output" >>"$d/reports"
		receiver_idle
		stop_receiver
		"$memcheck" --nonce "$nonce" "$d/dump" || fail "move $n: memory"
		rm "$d/dump"
		assert_at_destination
		assert_journals_settled
		settle_down
	done
	run -0 ctl vm stop-test
	assert_output --partial 'lost 0 wrong 0'
	figures "$1 $2"
	run -0 jq -s 'max' "$d/memory"
	[ "$output" -le 65536 ] || fail "memory: $output KiB"
}

# The pair's folder is its home now; the next receiver has another run folder.
settle_down() {
	follow
	run_number=$((run_number + 1))
	run_dir=$d/r$run_number
}

figures() {
	jq -rs --arg what "$1" --slurpfile memory "$d/memory" '
		def at(p): sort | .[((length - 1) * p) | floor];
		"\($what): \(length) moves; stop skew us median \(map(.stop_skew_us) | at(0.5)) worst \(map(.stop_skew_us) | max); downtime us median \(map(.downtime_us) | at(0.5)) worst \(map(.downtime_us) | max); total us median \(map(.total_us) | at(0.5)); forced \(map(select(.forced)) | length); VmHWM KiB \($memory | max)"
	' "$d/reports" | sed 's/^/# /' >&3
}

@test "vm: to and fro under writer and hashes" {
	series vm hash
}

@test "vm: to and fro under writer and open sequences" {
	series vm sequence
}

@test "swtpm: to and fro under writer and hashes" {
	series swtpm hash
}

@test "swtpm: to and fro under writer and open sequences" {
	series swtpm sequence
}
