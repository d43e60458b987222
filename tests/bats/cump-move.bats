#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr, kind and others are set by helpers
# Pairs that move whole: guests under load, each page and each TPM call accounted for.

bats_require_minimum_version 1.8.0
load helpers/cump

# bats file_tags=lab

setup_file() {
	tests/lab/build 3>&-
	tests/lab/certs "$BATS_FILE_TMPDIR/keys"
}

setup() {
	cump_setup
	keys=$BATS_FILE_TMPDIR/keys
}

teardown() {
	cump_teardown
}

# What the receiver does before it gives its promise: the memory as it came, before a guest runs.
write_dump_deed() {
	cat >"$d/deed" <<-END
		for f in $d/r/*/vm.mon; do
			'$ask' qmp "\$f" '{"execute":"pmemsave","arguments":{"val":0,"size":201334784,"filename":"$d/dump"}}'
		done >/dev/null
	END
}

# moves KIND MODE KEYS-OF-RECEIVER KEYS-OF-SENDER
moves() {
	lab_pair "$1" "$home" --mode "$2"
	write_pair_file
	write_dump_deed
	read -ra secure <<<"$3"
	start_receiver --debug-at "receive:prepared=sh $d/deed"
	read -ra secure <<<"$4"
	move --json
	echo "# $stderr"
	assert_success
	echo "$output" >"$d/report"
	receiver_idle
	run -0 "$memcheck" --nonce "$nonce" "$d/dump"
	assert_at_destination
	assert_journals_settled
	follow
	run -0 ctl vm stop-test
	assert_output --partial 'lost 0 wrong 0'
}

report() { # JQ-FILTER
	jq -er "$1" "$d/report"
}

report_is_whole() {
	report '.schema == "util-vm/cump-migrate/report/1" and .outcome == "done" and .exit == 0
		and (.id | length) == 36 and .total_us > 0 and .downtime_us > 0 and .downtime_us < .total_us
		and .stop_skew_us >= 0 and (.forced | type) == "boolean"
		and ([.vm, .vtpm] | all((["name", "uuid", "mem_bytes", "streams", "rounds", "zero_pages",
			"normal_pages", "raw_bytes", "wire_bytes", "downtime_us"] - keys) == []))
		and .vm.streams and .vm.rounds >= 2 and .vm.raw_bytes > 32000000'
	report '[.timeline[].at_us] == ([.timeline[].at_us] | sort)'
	assert_equal "$(report '[.timeline[].event] | join(" ")')" \
		"$(cump-migrate send --debug-steps | awk '/^send:/ { printf "%s%s", sep, $1; sep = " " }')"
	report '(.receipts | length) == 2 and all(.receipts[]; .ok and .pid > 0)'
	printf '# %s\n' "$(report '"total \(.total_us) us, downtime \(.downtime_us) us, skew \(.stop_skew_us) us"')" >&3
}

@test "vm, over TLS, under writer and hashes: whole, and nothing lost" {
	moves vm hash "--tls $keys/destination" "--tls $keys/source --peer-name destination"
	report_is_whole
	report '.vtpm.streams and .vtpm.rounds >= 2'
}

@test "vm, with a pre-shared key, under writer and open sequences: whole, and nothing lost" {
	moves vm sequence "--psk $keys/psk" "--psk $keys/psk"
	report_is_whole
}

@test "swtpm, over TLS, under writer and open sequences: whole, and no TPM state stays" {
	moves swtpm sequence "--tls $keys/destination" "--tls $keys/source"
	report_is_whole
	report '.receipts[1] | .member == "vtpm" and (.files | length) >= 1
		and all(.files[]; .bytes > 0 and (.sha256 | length) == 64)'
	assert_equal "$(tpm_files "$d/a")" ''
	[ -n "$(tpm_files "$home")" ]
}

@test "swtpm, with a pre-shared key, under writer and hashes: whole, and nothing lost" {
	moves swtpm hash "--psk $keys/psk" "--psk $keys/psk"
	report_is_whole
}

# The TPM's endorsement seed and more are in its state: in pieces of 32 bytes, is any of it in FILE?
state_shows() { # STATE FILE
	python3 - "$@" <<-'END'
		import sys
		state, link = (open(f, "rb").read() for f in sys.argv[1:])
		parts = {state[i:i + 32] for i in range(len(state) - 31)}
		parts = {p for p in parts if len(set(p)) > 16}  # not the zeros
		seen = sum(link[i:i + 32] in parts for i in range(len(link) - 31))
		print(seen)
		sys.exit(seen == 0)
	END
}

@test "the TPM's state is on the link as it is without keys, and not with them" {
	for with in insecure tls; do
		secure=(--insecure)
		[ $with = insecure ] || secure=(--tls "$keys/destination")
		bare_pair swtpm "$home"
		write_pair_file
		start_receiver
		[ $with = insecure ] || secure=(--tls "$keys/source")
		start_relay --record "$d/record"
		until_true test -s "$home/tpm/tpm2-00.permall"
		cp "$home/tpm/tpm2-00.permall" "$d/state"
		move --no-compress
		assert_success
		receiver_idle
		run state_shows "$d/state" "$d/record.up"
		if [ $with = insecure ]; then assert_success; else assert_failure; fi
		cump_teardown
		cump_setup
	done
}

@test "dry run: told that there is room, nothing changed" {
	for k in vm swtpm; do
		bare_pair $k "$home"
		write_pair_file
		start_receiver
		for verb in 'send --dry-run' check; do
			pair_arguments "$home"
			# shellcheck disable=SC2086 # a verb with its option
			run -0 --separate-stderr cump-migrate $verb "${secure[@]}" "${pair[@]}" "$address"
			assert_output --partial 'are a pair'
			assert_equal "$stderr" ''
			receiver_idle
			assert_at_source
			assert_journals_settled
			assert_equal "$(ls -A "$d/sa/done" "$d/sb/done" 2>/dev/null)" ''
		done
		cump_teardown
		cump_setup
	done
}

@test "two pairs at once, then one after another, into one receiver" {
	bare_pair vm "$d/a"
	write_pair_file "$d/first" && mkdir -p "$d/pairs" && mv "$d/first" "$d/pairs/1.pair"
	pair_arguments "$d/a"
	one=("${pair[@]}")
	bare_pair vm "$d/b"
	write_pair_file "$d/pairs/2.pair"
	pair_arguments "$d/b"
	two=("${pair[@]}")
	start_receiver
	cump-migrate send -q --insecure "${one[@]}" --state-dir "$d/sa" "$address" 3>&- &
	first=$!
	cump-migrate send -q --insecure "${two[@]}" --state-dir "$d/sa" "$address" 3>&- &
	wait $first
	wait $!
	receiver_idle
	for to in "$d"/r/*; do
		assert_equal "$(who_runs "$to")" 'vm vtpm'
	done
	assert_equal "$(ls "$d/r" | wc -l)" 2
	assert_no_process "$d/a"
	assert_no_process "$d/b"
	assert_journals_settled
	bare_pair vm "$d/c"
	write_pair_file "$d/pairs/3.pair"
	home=$d/c
	move
	assert_success
	receiver_idle
	assert_equal "$(ls "$d/r" | wc -l)" 3
	assert_journals_settled
}

@test "a pair file handed over: refused, and accepted with --accept-handed, which shows it" {
	bare_pair vm "$home"
	mkdir "$d/pairs"
	write_pair_file "$d/handed"
	start_receiver
	move --pair-file "$d/handed"
	assert_failure 3
	assert_one_line '.*--accept-handed'
	receiver_idle
	assert_at_source
	assert_journals_settled
	stop_receiver
	start_receiver --accept-handed
	move --pair-file "$d/handed"
	assert_success
	receiver_idle
	assert_at_destination
	run grep -c 'runs for the v.*: qemu-system-x86_64' "$d/receive.err"
	assert_output 2
}

# cancelled_at STEP: by `cancel`, which is a SIGTERM
cancelled_at() {
	echo "cump-migrate cancel --no-wait --state-dir '$d/sa' \$(basename '$d'/sa/*.source .source) >'$d/cancelled' 2>&1" \
		>"$d/deed"
	begin_move --debug-at "$1=sh $d/deed"
	end_move
	assert_equal "$1: $status $(cat "$d/cancelled")${stderr#*cancelled (Terminated)}" "$1: 143 "
	receiver_idle
	assert_at_source
	assert_journals_settled
}

@test "cancel at every step before the decision: rolled back, 143" {
	for k in vm swtpm; do
		bare_pair $k "$home"
		write_pair_file
		start_receiver
		for s in request reserved started converged stopped streamed prepared; do
			cancelled_at send:$s
		done
		move
		assert_success
		cump_teardown
		cump_setup
	done
}

stalled() {
	[ "$(cat "$d/relay.state" 2>/dev/null)" = stalled ] && no_children "$mover"
}

# A shell's command by --debug-at would keep SIGINT from us: let the link hold the move up instead.
@test "SIGINT and SIGTERM of the sender: rolled back, 130 and 143" {
	for k in vm swtpm; do
		bare_pair $k "$home"
		write_pair_file
		start_receiver --silence 2s
		for s in INT:130 TERM:143; do
			start_relay
			begin_move --debug-at "send:started=kill -s USR2 $relay; until [ -e '$d/relay.state' ]; do :; done"
			until_true stalled
			kill -s "${s%:*}" "$mover"
			end_move
			assert_equal "$s $status" "$s ${s#*:}"
			receiver_idle
			assert_at_source
			assert_journals_settled
			stop_relay
			rm -f "$d"/relay*
		done
		cump_teardown
		cump_setup
	done
}

@test "cancel waits for the end, and tells it" {
	bare_pair vm "$home"
	write_pair_file
	start_receiver --silence 2s
	start_relay
	begin_move --debug-at "send:started=kill -s USR2 $relay; until [ -e '$d/relay.state' ]; do :; done"
	until_true stalled
	id=$(basename "$d"/sa/*.source .source)
	run -0 --separate-stderr cump-migrate cancel --json --state-dir "$d/sa" "$id"
	assert_equal "$(jq -r '.id + " " + .outcome' <<<"$output")" "$id rolled back"
	end_move
	assert_equal "$status" 143
	receiver_idle
	assert_at_source
	stop_relay
}

@test "cancel after the decision: too late, it goes on" {
	bare_pair vm "$home"
	write_pair_file
	start_receiver
	for s in go; do
		begin_move --debug-at "send:$s=kill \$(cat '$d/send.pid')"
		end_move
		assert_equal "$status" 0
		receiver_idle
		assert_at_destination
	done
}

@test "status tells the phase while it moves, and of the past with --all; cancel of nothing: 3" {
	bare_pair vm "$home"
	write_pair_file
	start_receiver
	run -0 cump-migrate status --state-dir "$d/sa"
	assert_output ''
	echo "cump-migrate status --json --state-dir '$d/sa' >'$d/status'; echo \$? >'$d/rc'" >"$d/deed"
	move --debug-at "send:stopped=sh $d/deed"
	assert_success
	receiver_idle
	assert_equal "$(cat "$d/rc")" 0
	run -0 jq -er '[.schema, .role, .vm, .state, .condition] | join(" ")' "$d/status"
	assert_output 'util-vm/cump-migrate/status/1 source bare-vm started under way'
	run -0 cump-migrate status --all --state-dir "$d/sa"
	assert_output --regexp '^[0-9a-f-]{36} source released +finished '
	run -3 --separate-stderr cump-migrate cancel --state-dir "$d/sa" "$(new_uuid)"
	assert_one_line 'cancel .*: no such move'
	run -1 --separate-stderr cump-migrate status --state-dir "$d/sa" "$(new_uuid)"
	assert_one_line 'show .*: no such pair'
}
