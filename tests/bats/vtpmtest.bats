#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vtpmtest against real swtpms, 1.2 and 2.0, and against a faulty wire in front of one.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# Codes of the commands that the faults are about.
HASH=0x17d UPDATE=0x15c COMPLETE=0x13e START=0x186 EXTEND=0x182
OLD_START=0xa0 OLD_COMPLETE=0xa2 OLD_EXTEND=0x14

helpers=$BATS_TEST_DIRNAME/helpers
PATH=${O:-$BATS_TEST_DIRNAME/../../build}/bin:$PATH

# start_tpm NAME [OPTION]...: a swtpm on $dir/NAME, in the background once it listens
start_tpm() {
	local name=$1
	shift
	mkdir -p "$dir/$name.state"
	swtpm socket "$@" --tpmstate "dir=$dir/$name.state" --server "type=unixio,path=$dir/$name" \
		--ctrl "type=unixio,path=$dir/$name.ctrl" --flags startup-clear \
		--daemon --pid "file=$dir/$name.pid" 3>&-
}

stop_tpms() {
	local f
	for f in "$dir"/*.pid; do
		[ ! -s "$f" ] || kill "$(cat "$f")" 2>/dev/null || true
	done
}

# behind NAME FAULT...: a proxy on $dir/wire in front of the swtpm NAME
behind() {
	local name=$1
	shift
	"$helpers/tpm-fault-proxy" "$dir/wire" "$dir/$name" "$@" >"$dir/wire.pid" 3>&-
	wire=unix:$dir/wire
}

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	start_tpm new --tpm2
	start_tpm old
}

teardown_file() {
	dir=$BATS_FILE_TMPDIR
	stop_tpms
}

setup() {
	new=unix:$BATS_FILE_TMPDIR/new
	old=unix:$BATS_FILE_TMPDIR/old
	dir=$BATS_TEST_TMPDIR
}

teardown() {
	dir=$BATS_TEST_TMPDIR
	stop_tpms
}

last() {
	printf '%s\n' "${lines[-1]}"
}

# --- it works ---

# bats test_tags=fast
@test "hash, 2.0: every algorithm of the TPM is right" {
	for alg in sha1 sha256 sha384 sha512; do
		run -0 --separate-stderr vtpmtest -n 5 -r 500 --alg "$alg" "$new"
		assert_equal "$stderr" ""
		assert_regex "$(last)" '^done 5 lost 0 wrong 0 reply-lost 0 '
		assert_equal "${#lines[@]}" 7
	done
}

@test "hash: the digest is what sha1sum says of the same data, on 1.2 and 2.0 alike" {
	run -0 --separate-stderr vtpmtest -n 1 --seed 7 --size 20 "$new"
	assert_regex "${lines[1]}" '^1 [0-9TZ:.-]+ 84621ed386b7122f3cf6d6969b29de5b3e1d9616 [0-9.]+ [um]s$'
	run -0 --separate-stderr vtpmtest -n 1 --seed 7 --size 20 "$old"
	assert_regex "${lines[1]}" '^1 [0-9TZ:.-]+ 84621ed386b7122f3cf6d6969b29de5b3e1d9616 [0-9.]+ [um]s$'
}

@test "hash: sizes around the limits of the TPM" {
	for size in 1 63 64 65 1023 1024 1025 4032 4033 4096 100000; do
		for tpm in "$new" "$old"; do
			run -0 --separate-stderr vtpmtest -q -n 2 -r max --size $size "$tpm"
			assert_regex "$(last)" '^done 2 lost 0 wrong 0 '
		done
	done
}

@test "sequence: stays open over the ticks, its digest comes at the end, on 1.2 and 2.0 alike" {
	for tpm in "$new" "$old"; do
		run -0 --separate-stderr vtpmtest --mode sequence --length 3 -n 7 -r 500 --seed 7 "$tpm"
		assert_regex "${lines[1]}" '^1 [^ ]+ - '
		assert_regex "${lines[3]}" '^3 [^ ]+ f0a44f1782c942b70173c7ce626c73c9c0d8dd7d '
		assert_regex "$(last)" '^done 7 lost 0 wrong 0 reply-lost 0 '
	done
}

@test "pcr: the chain holds, run after run" {
	for tpm in "$new" "$old"; do
		for _ in 1 2; do
			run -0 --separate-stderr vtpmtest --mode pcr --pcr 23 -n 5 -r 500 "$tpm"
			assert_regex "$(last)" '^done 5 lost 0 wrong 0 reply-lost 0 '
		done
	done
	run -0 --separate-stderr vtpmtest --mode pcr --alg sha256 -n 5 -r 500 "$new"
}

@test "tcti: any TCTI that tpm2-tss loads" {
	run -0 --separate-stderr vtpmtest -q -n 5 -r 100 "tcti:swtpm:path=${new#unix:}"
	assert_equal "$stderr" ""
	assert_regex "$(last)" '^done 5 lost 0 wrong 0 '
}

@test "connections: several, each with its own sequence" {
	start_tpm t --tpm2
	behind t
	run -0 --separate-stderr vtpmtest -c 3 -r 500 -n 60 -m sequence --length 4 "$wire"
	assert_regex "$(last)" '^done 60 lost 0 wrong 0 '
	run -0 --separate-stderr vtpmtest -q -c 3 -r max -n 600 "$wire"
	assert_regex "$(last)" '^done 600 lost 0 wrong 0 '
}

@test "connections: a swtpm serves one at a time, and that is told" {
	run -124 --separate-stderr vtpmtest -c 2 -t 300ms -n 4 "$new"
	assert_regex "$stderr" 'connection 2 of 2 failed'
}

# --- formats ---

@test "format paper: the lines of the paper's figure 10" {
	run -0 --separate-stderr vtpmtest --format paper -n 2 -r 100 --seed 7 "$new"
	printf '%s\n' "$output" | sed -E 's/time:[0-9]{4}-[0-9]{2}-[0-9]{2}:[0-9]{2}-[0-9]{2}$/time:NOW/' \
		>"$dir/got"
	cat >"$dir/want" <<-'END'
		Take_SHA1_BASH
		1--time:NOW
		The SHA1 Result
		84621ed386b7122f3cf6d6969b29de5b3e1d9616

		2--time:NOW
		The SHA1 Result
		82bb418bbb3a63a78134f85c935a40eab02dc04d
	END
	run -0 diff -u "$dir/want" "$dir/got"
}

@test "format json: configuration, ticks, summary, each a line with its schema" {
	run -0 --separate-stderr vtpmtest --json -n 3 -r 100 --seed 7 "$new"
	assert_equal "${#lines[@]}" 5
	run -0 jq -rs '[.[].schema] | join(" ")' <<<"$output"
	assert_output "util-vm/vtpmtest/config/1 util-vm/vtpmtest/tick/1 util-vm/vtpmtest/tick/1 util-vm/vtpmtest/tick/1 util-vm/vtpmtest/summary/1"
}

@test "format json: numbers are raw integers and add up" {
	vtpmtest --json -n 20 -r 1000 "$new" >"$dir/out"
	run -0 jq -es '.[-1] | .done == 20 and .lost == 0 and .p50_ns <= .p99_ns and .p99_ns <= .max_ns
		and .exit_status == 0 and ([.[] | numbers | . == floor] | all)' "$dir/out"
}

@test "each record is one write" {
	command -v strace >/dev/null || skip "no strace"
	strace -f -e trace=write -e write=none -o "$dir/trace" vtpmtest -n 5 -r 100 "$new" >/dev/null
	run -0 grep -c 'write(1, ' "$dir/trace"
	assert_output 7
}

@test "summary only: by --summary-only and by -q" {
	run -0 --separate-stderr vtpmtest --summary-only -n 3 -r 100 "$new"
	assert_equal "${#lines[@]}" 2
	run -0 --separate-stderr vtpmtest -q -n 3 -r 100 --json "$new"
	assert_equal "${#lines[@]}" 2
}

@test "hdr: HdrHistogram's percentile text, with all ticks in it" {
	run -0 --separate-stderr vtpmtest -q -n 50 -r max --hdr "$dir/hdr" "$new"
	run -0 head -n 1 "$dir/hdr"
	assert_output '       Value     Percentile TotalCount 1/(1-Percentile)'
	run -0 grep -E '^#\[Max     = +[0-9.]+, Total count    = +50\]$' "$dir/hdr"
	run -0 grep -E '^ +[0-9.]+ 1\.000000000000 +50$' "$dir/hdr"
}

# --- schedule ---

@test "the same seed gives the same digests, whatever the rate" {
	vtpmtest -n 20 -r max --seed 99 "$new" | awk '/^[0-9]/ {print $1, $3}' >"$dir/a"
	vtpmtest -n 20 -r 2000 --seed 99 "$new" | awk '/^[0-9]/ {print $1, $3}' >"$dir/b"
	run -0 cmp "$dir/a" "$dir/b"
}

@test "duration ends the run" {
	run -0 --separate-stderr vtpmtest -q -d 300ms -p 50ms "$new"
	assert_regex "$(last)" '^done 6 lost 0 '
}

@test "SIGINT and SIGTERM end it with the summary" {
	for signal in INT TERM; do
		mkfifo "$dir/out.$signal"
		# A background job of a shell without job control ignores SIGINT: env undoes that.
		env --default-signal=INT vtpmtest -p 20ms "$new" >"$dir/out.$signal" 3>&- &
		pid=$!
		exec 4<"$dir/out.$signal"
		read -r _ <&4
		read -r _ <&4
		kill -s $signal $pid
		cat <&4 >"$dir/rest"
		wait $pid
		run -0 tail -n 1 "$dir/rest"
		assert_output --regexp '^done [0-9]+ lost 0 wrong 0 reply-lost 0 '
	done
}

# --- faults, each by its name ---

@test "fault: a dropped answer is a lost call" {
	start_tpm t --tpm2
	behind t drop:$HASH:4
	run -1 --separate-stderr vtpmtest -n 8 -p 20ms -t 200ms "$wire"
	assert_output --regexp '4 [^ ]+ - [0-9.]+ ms lost: no answer in 200'
	assert_regex "$(last)" '^done 7 lost 1 wrong 0 reply-lost 0 late [1-9]'
}

@test "fault: a duplicate answer is named, and only once" {
	start_tpm t --tpm2
	behind t dup:$HASH:4
	run -1 --separate-stderr vtpmtest -n 8 -p 20ms "$wire"
	assert_output --partial 'duplicate'
	assert_regex "$(last)" '^done 8 lost 0 wrong 0 .* out-of-step 1 '
}

@test "fault: a duplicate answer under full load is the digest of an earlier tick, or an answer too many" {
	start_tpm t --tpm2
	behind t dup:$HASH:40 dup:$HASH:80
	run -1 --separate-stderr vtpmtest -n 200 -r max "$wire"
	assert_output --partial 'duplicate'
	assert_regex "$(last)" 'lost 0 .* out-of-step 2 '
}

@test "fault: a wrong digest" {
	start_tpm t --tpm2
	behind t corrupt:$HASH:4
	run -1 --separate-stderr vtpmtest -n 8 -p 10ms "$wire"
	assert_output --partial 'wrong: wrong digest'
	assert_regex "$(last)" '^done 7 lost 0 wrong 1 '
}

@test "fault: a stall is named, and late ticks count from their planned time" {
	start_tpm t --tpm2
	behind t stall:$HASH:4:0.4
	run -0 --separate-stderr vtpmtest -n 20 -p 20ms --stall 200ms --json "$wire"
	assert_output --partial '"event":"stall"'
	run -0 jq -es '.[-1] | .done == 20 and .stalls == 1 and .gap_ns > 400000000 and .late > 10 and .p50_ns > 50000000' <<<"$output"
}

@test "fault: a closed connection is opened again" {
	start_tpm t --tpm2
	behind t close:$HASH:4
	run -0 --separate-stderr vtpmtest -n 8 -p 10ms "$wire"
	assert_regex "$(last)" '^done 8 lost 0 wrong 0 .* retries 1 reconnects 1 '
}

@test "fault: TPM_RC_RETRY is asked again and counted" {
	start_tpm t --tpm2
	behind t rc:$HASH:4:0x922
	run -0 --separate-stderr vtpmtest -n 8 -p 10ms "$wire"
	assert_regex "$(last)" '^done 8 lost 0 wrong 0 .* retries 1 '
}

@test "fault: 1.2, the SHA1 thread ended by another: the whole of it again" {
	start_tpm t
	behind t rc:$OLD_COMPLETE:4:0x1a
	run -0 --separate-stderr vtpmtest -n 8 -p 10ms "$wire"
	assert_regex "$(last)" '^done 8 lost 0 wrong 0 .* retries 1 '
}

@test "fault: 1.2, the SHA1 thread ended within a sequence: what was answered again" {
	start_tpm t
	behind t rc:0xa1:4:0x1a
	run -0 --separate-stderr vtpmtest -m sequence --length 5 -n 10 -p 10ms "$wire"
	assert_regex "$(last)" '^done 10 lost 0 wrong 0 .* retries 1 '
}

@test "fault: sequence, the reply is lost: the final digest holds the data" {
	start_tpm t --tpm2
	behind t drop:$UPDATE:2
	run -1 --separate-stderr vtpmtest -m sequence --length 4 -n 8 -p 10ms -t 200ms "$wire"
	assert_output --partial 'reply lost: the final digest holds its data'
	assert_regex "$(last)" '^done 7 lost 0 wrong 0 reply-lost 1 '
}

@test "fault: sequence, the call is lost: the final digest does not hold the data" {
	start_tpm t --tpm2
	behind t drop-request:$UPDATE:2
	run -1 --separate-stderr vtpmtest -m sequence --length 4 -n 8 -p 10ms -t 200ms "$wire"
	assert_output --partial 'lost: the final digest does not hold its data'
	assert_regex "$(last)" '^done 7 lost 1 wrong 0 reply-lost 0 '
}

@test "fault: sequence, a call executed twice" {
	start_tpm t --tpm2
	behind t dup-request:$UPDATE:2
	run -1 --separate-stderr vtpmtest -m sequence --length 4 -n 8 -p 10ms "$wire"
	assert_output --partial 'duplicate: tick 2 was executed twice'
	assert_regex "$(last)" '^done 7 lost 0 wrong 1 '
}

@test "fault: sequence, the TPM lost its state" {
	start_tpm t --tpm2
	behind t reset:$UPDATE:3
	run -1 --separate-stderr vtpmtest -m sequence --length 4 -n 8 -p 10ms --startup "$wire"
	assert_output --partial 'state lost: the sequence is gone'
	assert_regex "$(last)" 'wrong 1 .* state-lost 1 '
}

@test "fault: sequence, its final digest is lost" {
	start_tpm t --tpm2
	behind t drop:$COMPLETE:1
	run -1 --separate-stderr vtpmtest -m sequence --length 4 -n 8 -p 10ms -t 200ms "$wire"
	assert_regex "$(last)" '^done 7 lost 1 wrong 0 '
}

@test "fault: pcr, the reply is lost: the PCR tells" {
	for family in --tpm2 ''; do
		code=$EXTEND
		[ -n "$family" ] || code=$OLD_EXTEND
		# shellcheck disable=SC2086 # no family, no word
		start_tpm "t$family" $family
		behind "t$family" drop:$code:2
		run -1 --separate-stderr vtpmtest -m pcr -n 5 -p 10ms -t 200ms "$wire"
		assert_regex "$(last)" '^done 4 lost 0 wrong 0 reply-lost 1 '
		kill "$(cat "$dir/wire.pid")"
	done
}

@test "fault: pcr, the call is lost: the PCR tells" {
	start_tpm t --tpm2
	behind t drop-request:$EXTEND:2
	run -1 --separate-stderr vtpmtest -m pcr -n 5 -p 10ms -t 200ms "$wire"
	assert_regex "$(last)" '^done 4 lost 1 wrong 0 reply-lost 0 '
}

@test "fault: pcr, a call executed twice" {
	start_tpm t --tpm2
	behind t dup-request:$EXTEND:2
	run -1 --separate-stderr vtpmtest -m pcr -n 5 -p 10ms "$wire"
	assert_output --partial 'duplicate: the extend was executed twice'
	assert_regex "$(last)" '^done 4 lost 0 wrong 1 '
}

@test "fault: pcr, the TPM lost its state" {
	start_tpm t --tpm2
	behind t reset:$EXTEND:3
	run -1 --separate-stderr vtpmtest -m pcr -n 5 -p 10ms --startup "$wire"
	assert_output --partial 'state lost: PCR 16 had been reset'
	assert_regex "$(last)" '^done 4 lost 0 wrong 1 .* state-lost 1 '
}

@test "fault: the swtpm is killed, another takes its place: asked until it answers" {
	start_tpm t --tpm2
	mkfifo "$dir/out"
	vtpmtest -p 20ms -n 30 --startup "unix:$dir/t" >"$dir/out" 3>&- &
	pid=$!
	exec 4<"$dir/out"
	read -r _ <&4
	read -r _ <&4
	kill -9 "$(cat "$dir/t.pid")"
	start_tpm t --tpm2
	cat <&4 >"$dir/rest"
	wait $pid
	run -0 tail -n 1 "$dir/rest"
	assert_output --regexp '^done 30 lost 0 wrong 0 .* reconnects 1 '
}

@test "fault: nothing ever answers: 124" {
	behind_nobody=$dir/deaf
	socat -u "UNIX-LISTEN:$behind_nobody" "OPEN:/dev/null" 3>&- &
	pid=$!
	echo $pid >"$dir/deaf.pid"
	until [ -S "$behind_nobody" ]; do read -rt 0.02 _ <><(:) || true; done
	run -124 --separate-stderr vtpmtest -n 2 -t 300ms "unix:$behind_nobody"
	assert_regex "$stderr" 'no answer in 300'
}

# --- bad input ---

@test "usage errors: 2" {
	for bad in '--size 0' '--size 2M' '--count 0' '--mode nonsense' '--alg md5' '--rate 0' \
		'--rate -1' '--rate nan' '--period x' '--period 1s --rate 5' '--tpm 3' '--pcr 5' \
		'--connections 0' '--format xml' '--json --format text' '--seed x' '--cpu x' \
		'--nonsense' '--length 0' '--timeout 0' '--mode pcr -c 2'; do
		# shellcheck disable=SC2086 # options with their arguments
		run -2 --separate-stderr vtpmtest $bad "$new"
		assert_output ''
		assert_regex "$stderr" '^vtpmtest: .*--help'
	done
	run -2 --separate-stderr vtpmtest "$new" "$old"
	run -2 --separate-stderr vtpmtest nonsense
	run -2 --separate-stderr vtpmtest tcti:
	run -2 --separate-stderr vtpmtest --mode sequence --size 100 "$old"
	run -2 --separate-stderr vtpmtest --mode sequence --size 2000 "$new"
}

@test "no TPM, no such algorithm, another family: 3" {
	run -3 --separate-stderr vtpmtest /dev/no-such-tpm
	assert_regex "$stderr" '^vtpmtest: open /dev/no-such-tpm: No such file'
	run -3 --separate-stderr vtpmtest /dev/null/x
	run -3 --separate-stderr vtpmtest "$dir"
	run -3 --separate-stderr vtpmtest "${new#unix:}"
	assert_regex "$stderr" 'a socket: say unix:'
	run -3 --separate-stderr vtpmtest "unix:$dir/none"
	run -3 --separate-stderr vtpmtest tcp:127.0.0.1:1
	run -3 --separate-stderr vtpmtest tcti:nonsense
	run -3 --separate-stderr vtpmtest --alg sm3_256 "$new"
	run -3 --separate-stderr vtpmtest --alg sha256 "$old"
	run -3 --separate-stderr vtpmtest --tpm 1.2 "$new"
	run -3 --separate-stderr vtpmtest --tpm 2.0 "$old"
	run -3 --separate-stderr vtpmtest --hdr "$dir/no/file" "$new"
}

@test "a TPM that was not started up: told, and done by --startup" {
	for family in --tpm2 ''; do
		mkdir -p "$dir/cold$family.state"
		# shellcheck disable=SC2086
		swtpm socket $family --tpmstate "dir=$dir/cold$family.state" \
			--server "type=unixio,path=$dir/cold$family" \
			--ctrl "type=unixio,path=$dir/cold$family.ctrl" --flags not-need-init \
			--daemon --pid "file=$dir/cold$family.pid" 3>&-
		run -3 --separate-stderr vtpmtest -n 1 "unix:$dir/cold$family"
		assert_regex "$stderr" 'add --startup'
		run -0 --separate-stderr vtpmtest -n 1 --startup "unix:$dir/cold$family"
		run -0 --separate-stderr vtpmtest -n 1 --startup "unix:$dir/cold$family"
	done
}

@test "a full disk is a failure, a reader that left is not" {
	run -4 --separate-stderr bash -c "vtpmtest -n 3 -p 10ms $new >/dev/full"
	assert_regex "$stderr" 'write to standard output: No space left'
	run -0 --separate-stderr bash -c "set -o pipefail; vtpmtest -n 100 -p 5ms $new | head -n 2"
	assert_equal "$stderr" ""
	run -4 --separate-stderr vtpmtest -q -n 3 -p 10ms --hdr /dev/full "$new"
}

@test "device and socket targets load no TCTI and read no file of tpm2-tss" {
	command -v strace >/dev/null || skip "no strace"
	strace -f -e trace=open,openat -o "$dir/trace" vtpmtest -q -n 1 "$new"
	run -1 grep -E 'tss2-tcti-|tpm2-tss/|/etc/tpm2' "$dir/trace"
}
