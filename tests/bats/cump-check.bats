#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr, kind and others are set by helpers
# What cump-migrate refuses, and in what words: the pair runs on at the source, the receiver serves on.

bats_require_minimum_version 1.8.0
load helpers/cump

setup_file() {
	tests/lab/build 3>&- # for its program "ask"
	tests/lab/certs "$BATS_FILE_TMPDIR/keys"
	tests/lab/certs "$BATS_FILE_TMPDIR/others"
}

setup() {
	cump_setup
	keys=$BATS_FILE_TMPDIR/keys others=$BATS_FILE_TMPDIR/others
}

teardown() {
	cump_teardown
}

# A pair, its file, and a receiver.
both_ends() { # KIND [OPTION-OF-RECEIVE...]
	bare_pair "$1" "$home"
	write_pair_file
	start_receiver "${@:2}"
}

still_as_before() {
	receiver_idle
	assert_at_source
	assert_journals_settled
	lives "$receiver" || fail "the receiver has ended"
}

# After whatever came before, a good pair is taken in.
still_serves() {
	still_as_before
	move
	assert_success
	receiver_idle
	assert_at_destination
}

# edit SED-SCRIPT: of the receiver's pair file
edit() {
	sed -i -E "$1" "$d/pairs/a.pair"
}

# refused STATUS REGEXP [OPTION-OF-SEND...]
refused() {
	move "${@:3}"
	assert_failure "$1"
	assert_output ''
	assert_one_line "$2"
	still_as_before
}

# --- are they a pair? ---

@test "check: a pair is told as one, on a line each and as JSON, of either kind" {
	for k in vm swtpm; do
		bare_pair $k "$d/$k"
		pair_arguments "$d/$k"
		run -0 --separate-stderr cump-migrate check "${pair[@]}"
		assert_equal "$stderr" ''
		assert_line --index 0 --regexp "^VM +bare-vm +$vm_uuid +16"
		assert_line --index 1 --regexp '^vTPM '
		assert_line --index 2 --regexp '^bound by '
		run -0 --separate-stderr cump-migrate check --json "${pair[@]}"
		run -0 jq -er '.schema, .vm.uuid' <<<"$output"
		assert_output "util-vm/cump-migrate/check/1
$vm_uuid"
	done
}

@test "check: a pair by pid, by name" {
	bare_pair swtpm "$home"
	run -0 --separate-stderr cump-migrate check --vm "pid:$(cat "$home/vm.pid")" \
		--vtpm "pid:$(cat "$home/swtpm.pid")"
	assert_equal "$stderr" ''
}

@test "the vTPM of another VM: 1" {
	bare_pair vm "$d/other"
	other=$vtpm_uuid
	bare_pair vm "$home"
	own=$vtpm_uuid
	for verb in check send; do
		run -1 --separate-stderr cump-migrate $verb "${secure[@]}" --vm "qmp:$home/vm.qmp" \
			--vtpm "qmp:$d/other/vtpm.qmp" unix:/nowhere
		assert_output ''
		assert_one_line "check pair: VM bare-vm is bound to vTPM $own, not to $other"
	done
	bare_pair swtpm "$d/third"
	run -1 --separate-stderr cump-migrate check --vm "qmp:$home/vm.qmp" --vtpm "swtpm:$d/third/swtpm.ctrl"
	assert_one_line "check pair: VM bare-vm is bound to vTPM $own, not to $d/third/swtpm.ctrl"
}

@test "a swtpm of another VM: 1" {
	bare_pair swtpm "$d/other"
	bare_pair swtpm "$home"
	run -1 --separate-stderr cump-migrate check --vm "qmp:$home/vm.qmp" --vtpm "swtpm:$d/other/swtpm.ctrl"
	assert_one_line "check pair: VM bare-vm is bound to vTPM $home/swtpm.ctrl, not to $d/other/swtpm.ctrl"
}

@test "VM and vTPM swapped: 1" {
	bare_pair vm "$home"
	run -1 --separate-stderr cump-migrate check --vtpm "qmp:$home/vm.qmp" --vm "qmp:$home/vtpm.qmp"
	assert_output ''
	assert_one_line 'check pair: VM bare-vtpm has no vTPM'
	assert_at_source
}

@test "a VM without a TPM: 1" {
	bare_pair vm "$home"
	bare_pair vm "$d/other"
	run -1 --separate-stderr cump-migrate check --vm "qmp:$d/other/vtpm.qmp" --vtpm "qmp:$home/vtpm.qmp"
	assert_one_line 'check pair: VM bare-vtpm has no vTPM'
}

@test "two VMs bound to one vTPM: 1" {
	bare_pair vm "$home"
	mkdir "$d/rival"
	(vm_uuid=$(new_uuid) && bare_vm "$d/rival" | launch_words "$d/rival/log")
	until_true answers "$d/rival" vm
	pair_arguments "$home"
	run -1 --separate-stderr cump-migrate check "${pair[@]}"
	assert_output ''
	assert_one_line "check pair: vTPM $vtpm_uuid is bound to process $(cat "$d/rival/vm.pid"), too"
}

@test "no such target: 3" {
	bare_pair vm "$home"
	for bad in qmp:/no/such.qmp pid:1 pid:999999999 no-such-name "qmp:$home" "qmp:$home/vm.log"; do
		run -3 --separate-stderr cump-migrate check --vm "$bad" --vtpm "qmp:$home/vtpm.qmp"
		assert_output ''
		assert_one_line '.*'
		run -3 --separate-stderr cump-migrate check --vm "qmp:$home/vm.qmp" --vtpm "$bad"
		assert_one_line '.*'
	done
	run -3 --separate-stderr cump-migrate check --vm "qmp:$home/vm.qmp" --vtpm swtpm:/no/such
	assert_one_line 'find vTPM /no/such: No such file'
	run -3 --separate-stderr cump-migrate check --vm "qmp:$home/vm.qmp" --vtpm "swtpm:$home/vm.log"
	assert_one_line 'find vTPM: no process serves'
}

@test "usage errors: 2, on one line, and nothing is touched" {
	bare_pair vm "$home"
	pair_arguments "$home"
	send=(send "${pair[@]}")
	bad_usage() {
		run -2 --separate-stderr cump-migrate "$@"
		assert_output ''
		assert_one_line ".*--help'"
	}
	bad_usage
	bad_usage nonsense
	bad_usage check
	bad_usage check --vm "qmp:$home/vm.qmp"
	bad_usage check "${pair[@]}" one two
	bad_usage "${send[@]}" --insecure
	bad_usage "${send[@]}" --insecure unix:/a unix:/b
	bad_usage "${send[@]}" unix:/a
	bad_usage "${send[@]}" --insecure --tls "$keys/source" unix:/a
	bad_usage "${send[@]}" --insecure tcp:
	bad_usage "${send[@]}" --insecure tcp:host:99999
	bad_usage "${send[@]}" --insecure --budget x unix:/a
	bad_usage "${send[@]}" --insecure --max-rounds -1 unix:/a
	bad_usage "${send[@]}" --insecure --nonsense unix:/a
	bad_usage send --insecure unix:/a
	bad_usage receive unix:/a
	bad_usage receive --insecure
	bad_usage cancel
	bad_usage recover id nonsense
	bad_usage status one two
	assert_at_source
}

# --- the way there ---

@test "unknown destination: 3" {
	bare_pair vm "$home"
	for dest in unix:/no/such tcp:127.0.0.1:1 tcp:no-such-host.invalid:1; do
		move
		assert_failure 3
		assert_output ''
		assert_one_line ".*$dest: "
		assert_at_source
		assert_journals_settled
	done
}

@test "a wrong certificate, or a wrong name in it, on either side: 3" {
	secure=(--tls "$keys/dest")
	both_ends vm
	secure=(--tls "$others/source")
	refused 3 '.*certificate'
	secure=(--tls "$keys/source" --peer-name elsewhere)
	refused 3 '.*(name|certificate)'
	secure=(--tls "$keys/source" --peer-name dest)
	still_serves
}

@test "a wrong pre-shared key: 3" {
	secure=(--psk "$keys/psk")
	both_ends vm
	secure=(--psk "$others/psk")
	refused 3 '.*(key|PSK|refused|handshake)'
	secure=(--psk "$keys/psk")
	still_serves
}

@test "a key file that others may read: 3" {
	bare_pair vm "$home"
	cp "$keys/psk" "$d/psk"
	chmod 644 "$d/psk"
	secure=(--psk "$d/psk") dest=unix:/nowhere
	move
	assert_failure 3
	assert_one_line ".*$d/psk"
}

@test "TLS against plain, plain against TLS, PSK against certificates: 3" {
	both_ends vm --silence 2s
	secure=(--tls "$keys/source")
	refused 3 '.*'
	secure=(--insecure)
	still_serves
	cump_teardown
	cump_setup
	secure=(--tls "$keys/dest")
	both_ends vm --silence 2s
	secure=(--insecure)
	refused 3 '.*' --silence 2s
	secure=(--psk "$keys/psk")
	refused 3 '.*'
	secure=(--tls "$keys/source")
	still_serves
}

# --- the destination's pair file ---

@test "pair file errors name file, section and key: 3" {
	both_ends vm
	f=$d/pairs/a.pair
	while IFS='|' read -r change words; do
		write_pair_file
		edit "$change"
		refused 3 ".*read $f: $words"
	done <<'END'
s/^vm-uuid = .*/vm-uuid = nonsense/|\[pair\] vm-uuid: not a uuid
s/^vm-uuid/vm-id/|\[pair\] vm-id: no such key
s/^\[vtpm\]/[tpm]/|\[tpm\]: no such section
s/^qmp = .*vm.qmp/qmp = vm.qmp/|\[vm\] qmp: not an absolute path
s/^qmp = .*vtpm.qmp/qmp = ${nowhere}/|\[vtpm\] qmp: unknown
s/^qmp = .*vm.qmp//|\[vm\]: qmp is missing
s/^qmp = .*vm.qmp/socket = \/x/|\[vm\] socket: no such key
s/(guest=bare-vm)$/'\1/|\[vm\] command: a quote is open
/^\[vm\]/,${s/^command = .*/command = /;/^    /d}|\[vm\] command: it is missing
s/^qmp = .*vm.qmp/nonsense/|line [0-9]+ is not
s/^\[vm\]/[vm/|line [0-9]+ is not
END
	write_pair_file
	still_serves
}

@test "a pair file that others may write: 3" {
	both_ends vm
	chmod 666 "$d/pairs/a.pair"
	refused 3 ".*read $d/pairs/a.pair: others may write it"
	chmod 600 "$d/pairs/a.pair"
	chown 12345 "$d/pairs/a.pair" || skip "not root"
	refused 3 ".*read $d/pairs/a.pair: others may write it"
	chown 0 "$d/pairs/a.pair"
	still_serves
}

@test "no pair file for this pair: 3" {
	both_ends vm
	edit "s/^vm-uuid = .*/vm-uuid = $(new_uuid)/"
	refused 3 ".*no file in $d/pairs is for VM $vm_uuid"
	rm "$d/pairs/a.pair"
	refused 3 ".*no \*.pair file in $d/pairs"
	write_pair_file
	still_serves
}

# --- what the pair file starts ---

@test "another uuid, memory or binding at the destination: 1" {
	both_ends vm
	other=$(new_uuid)
	edit "s/-uuid$/&/;s/^    $vm_uuid/    $other/"
	refused 1 ".*check pair: the VM started here is $other, the one to come is $vm_uuid"
	write_pair_file
	edit '/^\[vm\]/,$s/16785408B/33562624B/'
	refused 1 '.*check pair: the VM here has 33562624 bytes of memory, not 16785408'
	write_pair_file
	edit "/fw_cfg/,\$s/$vtpm_uuid/$other/"
	refused 1 ".*check pair: here the VM is bound to $other, not to $vtpm_uuid"
	write_pair_file
	still_serves
}

@test "a command that does not start: 3, and its last words are told" {
	for k in vm swtpm; do
		both_ends $k
		edit '/^\[vm\]/,$s/-nodefaults/-no-such-option/'
		refused 3 '.*start VM: .*-no-such-option: invalid option'
		write_pair_file
		edit '/^\[vtpm\]/,/^\[vm\]/s/^command = .*/command = \/no\/such\/program/'
		refused 3 '.*start vTPM: unable to run /no/such/program: No such file'
		write_pair_file
		edit '/^\[vtpm\]/,/^\[vm\]/{s/^command = .*/command = true/;/^    /d}'
		refused 3 '.*start vTPM: it said nothing'
		write_pair_file
		still_serves
		cump_teardown
		cump_setup
	done
}

@test "not enough memory at the destination: 3" {
	mem=$(awk '/^MemTotal/ { printf "%.0fB", int($2 / 1024 * 0.75) * 1048576 + 8192 }' /proc/meminfo)
	bare_pair vm "$home" -S
	write_pair_file
	start_receiver
	move
	assert_failure 3
	assert_one_line '.*memory'
	receiver_idle
	assert_nothing_at_destination
	assert_journals_settled
}

@test "not enough disk for the TPM's state at the destination: 3" {
	bare_pair swtpm "$home"
	write_pair_file
	mkdir "$d/small"
	mount -t tmpfs -o size=64k none "$d/small" 2>/dev/null || skip "cannot mount"
	ln -s small "$d/r"
	start_receiver
	refused 3 ".*(room|space|disk|bytes)"
	rm "$d/r"
	still_serves
}

# --- nonsense on the line ---

# A connection that says FILE's bytes, and is read to its end.
say() { # FILE
	socat -t 5 - "UNIX-CONNECT:$d/link" <"$1" >"$d/answer" 2>/dev/null || true
	receiver_idle
}

complaints() {
	grep -cv 'listening at' "$d/receive.err" || true
}

@test "garbage, a truncated frame, silence: each told once, the receiver serves on" {
	both_ends vm --silence 1s
	head -c 100000 /dev/urandom >"$d/noise"
	say "$d/noise"
	assert_equal "$(complaints)" 1
	printf 'GET / HTTP/1.0\r\n\r\n                          ' >"$d/noise"
	say "$d/noise"
	assert_equal "$(complaints)" 2
	printf 'CMP1' >"$d/noise"
	say "$d/noise"
	assert_equal "$(complaints)" 3
	: >"$d/noise"
	say "$d/noise"
	assert_equal "$(complaints)" 4
	head -c 40 /dev/zero >"$d/noise"
	say "$d/noise"
	assert_equal "$(complaints)" 5
	still_serves
}

@test "a stream replayed: refused, for it answers another greeting" {
	both_ends vm
	start_relay --record "$d/record"
	move
	assert_success
	receiver_idle
	stop_relay
	follow
	mv "$d/r" "$d/kept"
	say "$d/record.up"
	assert_equal "$(complaints)" 1
	run grep -v 'listening at' "$d/receive.err"
	assert_output --partial 'it answers another greeting (replayed?)'
	[ ! -e "$d/r" ] || assert_equal "$(ls -A "$d/r")" ''
	assert_journals_settled
}

@test "a stream that ends early, somewhere in its greeting: told once" {
	both_ends vm
	start_relay --record "$d/record"
	move
	assert_success
	receiver_idle
	stop_relay
	size=$(stat -c %s "$d/record.up")
	for n in 1 31 32 33 100 $((size / 2)); do
		head -c "$n" "$d/record.up" >"$d/part"
		before=$(complaints)
		say "$d/part"
		assert_equal "$(complaints)" $((before + 1))
		assert_journals_settled
	done
}

@test "another version of the protocol: 3, told by either side" {
	both_ends vm
	"$helpers/speak" "$d/link" version >"$d/answer"
	receiver_idle
	run cat "$d/answer"
	assert_output --partial 'version 99 of the protocol'
	assert_equal "$(complaints)" 1
	stop_receiver
	"$helpers/speak" --listen "$d/old" version 3>&- &
	until_true test -S "$d/old"
	dest=unix:$d/old
	move
	assert_failure 3
	assert_one_line 'ask destination: it speaks version 99 of the protocol, this is 2'
	assert_journals_settled
}

@test "well-formed nonsense in a request: refused, each told once" {
	both_ends vm
	n=0
	for what in no-members three-members bad-id path-id bad-uuid other-type resolve-unknown not-json \
		owner huge-length bad-checksum sequence; do
		n=$((n + 1))
		"$helpers/speak" "$d/link" $what >"$d/answer"
		receiver_idle
		assert_equal "$what: $(complaints)" "$what: $n"
	done
	still_serves
}
