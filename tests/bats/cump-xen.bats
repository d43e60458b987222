#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154,SC2030,SC2031,SC2016,SC2034 # set by helpers; the hosts' own
# cump-migrate on Xen: two domains of one host move as one to another, real hosts both (tests/lab/README.md).
bats_require_minimum_version 1.8.0
load helpers/cump-xen

# bats file_tags=lab

setup_file() {
	# Its PCRs prove that the TPM's state has moved; cump-xen-series.bats has a sequence.
	xen_setup_file --test --rate,5,--mode,pcr,/dev/tpm0
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

number() { # KEY: out of the report
	grep -o "\"$1\":[0-9]*" <<<"$output" | head -n 1 | cut -d: -f2
}

@test "a VM and its vTPM move as one: lists, TPM, memory, streams" {
	on "$home" xl list >&3
	assert_only_at "$home" "$away"
	on "$away" mkdir /tmp/c/streams
	start_receiver -v --debug-streams /tmp/c/streams
	move -v --verify --json --no-compress
	echo "# $output" >&3
	assert_equal "$status" 0
	few_unlogged
	assert_regex "$output" '"outcome":"done"'
	# Every page of both, there as here, before it ran there.
	run cat "$d/receive.err"
	assert_line --regexp "state of the VM is the source's: [0-9a-f]{32}"
	assert_line --regexp "state of the vTPM is the source's: [0-9a-f]{32}"
	stop_receiver
	local from=$home
	moved
	on "$home" xl list >&3
	assert_only_at "$home" "$from"
	assert_settled
	# What libxl read is a stream by Xen's own judgement.
	for s in vm vtpm; do
		run on "$home" sh -c 'cd /usr/lib/xen-*/ && PYTHONPATH=$PWD/lib/python bin/verify-stream-v2 -v -f libxl -i "$1"' \
			sh "/tmp/c/streams/$s.stream"
		assert_success
		assert_output --partial "HVM params"
	done
	run ctl vm stop-test
	echo "# vtpmtest: $output" >&3
	assert_success
	assert_output --partial "lost 0 wrong 0"
	# And by another way: what the writer wrote is there.
	run -0 on "$home" sh -c 'xl pause pair && tests/lab/xen-pair dump --dir /tmp/p vm /tmp/c/dump && xl unpause pair &&
		. /tmp/p/pair.env && "${O:-build}/lab/bin/memcheck" --nonce "$nonce" /tmp/c/dump'
	assert_output --partial "memcheck: good"
	ctl vm start-test --rate,10,--mode,hash,/dev/tpm0
}

refused() { # STATUS TEXT
	assert_equal "$status" "$1"
	assert_regex "$stderr" "$2"
	assert_only_at "$home" "$away"
	assert_settled
}

# bats test_tags=long
@test "a wrong pair, another Xen, a name that is taken, too little memory: refused, and nothing moves" {
	start_receiver
	pair=(--vm xen:pair-vtpm --vtpm xen:pair)
	move
	refused 1 "has no vTPM"
	pair=(--vm xen:pair --vtpm xen:pair-vtpm)
	on "$home" xenstore-write "/vm/$vm_uuid/util-vm/vtpm-uuid" 00000000-0000-4000-8000-000000000001
	move
	refused 1 "is bound to vTPM 00000000-0000-4000-8000-000000000001, not to $vtpm_uuid"
	on "$home" xenstore-write "/vm/$vm_uuid/util-vm/vtpm-uuid" "$vtpm_uuid"

	cc -shared -fPIC -D_GNU_SOURCE -o "$d/other-xen.so" "$helpers/other-xen.c"
	send_env=(LD_PRELOAD="$d/other-xen.so")
	move
	refused 3 "it comes from a 'xen 4.[0-9]+', and this is a 'xen 4.[0-9]+'"
	send_env=()
	run --separate-stderr on "$home" "$tool" check --insecure "${pair[@]}" "tcp:$address:7070"
	assert_equal "$status" 0

	# Two paused domains are in the way there, one after the other.
	on "$away" sh -c 'printf "type=\"pvh\"\nname=\"pair\"\nmemory=96\nkernel=\"%s\"\n" "$1" >/tmp/c/x.cfg
		xl create -qp /tmp/c/x.cfg' sh "$PWD/${O:-build}/lab-xen/vmlinux"
	move
	assert_equal "$status" 3
	assert_regex "$stderr" "a domain of this name is here already"
	on "$away" xl destroy pair
	free=$(on "$away" xl info | awk '/^free_memory/ { print $3 }')
	on "$away" sh -c 'sed -i "s/pair/other/; s/memory=.*/memory=$2/" /tmp/c/x.cfg && xl create -qp /tmp/c/x.cfg' sh \
		"" $((free - 120))
	move
	assert_equal "$status" 3
	assert_regex "$stderr" "MiB needed, Xen has [0-9]+ MiB free"
	run -3 on "$home" "$tool" check --insecure "${pair[@]}" "tcp:$address:7070"
	on "$away" xl destroy other
	assert_only_at "$home" "$away"
	assert_settled
}

# With xen-tpmfront, nobody who waits for a TPM can be frozen; and here it never answers.
# bats test_tags=long
@test "a guest that cannot suspend, as it waits for its TPM: asked again and again, then both run on at the source" {
	ctl vm stop-test
	ctl vm 'sh echo N >/sys/module/vtpm_front/parameters/freezable; echo 400 >/sys/power/pm_freeze_timeout'
	ctl vtpm 'sh killall -STOP swtpm'
	# TPM2_GetRandom, by who waits in the kernel.
	ctl vm 'sh (printf "\200\1\0\0\0\14\0\0\1\173\0\10" >&6; dd bs=64 count=1 <&6) 6<>/dev/tpm0 >/run/asked 2>/dev/null & true'
	start_receiver
	move --no-compress
	assert_equal "$status" 124
	assert_regex "$stderr" "it did not, asked [0-9]+ times"
	assert_only_at "$home" "$away"
	assert_settled
	assert_equal "$(ctl vm 'sh wc -c </run/asked')" 0
	ctl vtpm 'sh killall -CONT swtpm'
	ctl vm 'sh until [ -s /run/asked ]; do usleep 10000; done'
	ctl vm 'sh echo Y >/sys/module/vtpm_front/parameters/freezable; echo 20000 >/sys/power/pm_freeze_timeout'
	ctl vm start-test --rate,5,--mode,pcr,/dev/tpm0
}

@test "cancelled in its first rounds, and when it could have started there: both run on at the source" {
	start_receiver
	for step in send:started send:prepared; do
		move --no-compress --debug-at "$step=kill -TERM \$PPID"
		assert_equal "$status" 143
		assert_only_at "$home" "$away"
		assert_settled
	done
	assert_alive
}

# Not while the receiver's child still waits for a sender that is gone.
recovers() {
	run on "$home" "$tool" recover --state-dir /tmp/c/sa
	[ "$status" = 0 ]
}

# bats test_tags=long
@test "the sender is killed with both suspended; the receiver with both restored; the sender after the decision" {
	receive_options=(--silence 3s)
	start_receiver
	move --no-compress --debug-at 'send:stopped=kill -KILL $PPID'
	assert_equal "$status" 137
	assert_equal "$(runs_on "$home")" ""
	until_true recovers
	assert_output --partial "rolled back"
	assert_only_at "$home" "$away"
	assert_settled
	stop_receiver

	start_receiver --debug-at 'receive:restored=kill -KILL $PPID'
	move --no-compress
	assert_equal "$status" 4
	assert_only_at "$home" "$away"
	assert_settled
	stop_receiver

	start_receiver
	move --no-compress --debug-at 'send:go=kill -KILL $PPID'
	assert_equal "$status" 137
	until_true recovers
	local from=$home
	moved
	assert_only_at "$home" "$from"
	assert_alive
	run ctl vm stop-test
	echo "# vtpmtest: $output" >&3
	assert_success
	assert_output --partial "lost 0 wrong 0"
}

# bats test_tags=long
@test "a guest that dirties faster than the link: the round limit ends it, beyond the budget; and off line" {
	new_pair --rate 0
	where_is_it
	start_receiver
	move --no-compress --json --max-rounds 4 --budget 100ms
	echo "# $output" >&3
	assert_equal "$status" 0
	assert_regex "$output" '"forced":true'
	[ "$(number rounds)" -le 7 ]
	stop_receiver
	local from=$home
	moved
	assert_only_at "$home" "$from"

	start_receiver -v
	move --no-compress --offline --verify
	assert_equal "$status" 0
	run cat "$d/receive.err"
	assert_line --partial "state of the VM is the source's"
	stop_receiver
	moved
	run -0 ctl vm stop-test
	assert_output --partial "lost 0 wrong 0"
}

# bats test_tags=long
@test "PV domains: refused while they run, moved off line" {
	new_pair --type pv
	where_is_it
	start_receiver
	move --no-compress
	refused 3 "cannot be logged here"
	move --no-compress --offline --json
	echo "# $output" >&3
	assert_equal "$status" 0
	stop_receiver
	local from=$home
	moved
	assert_only_at "$home" "$from"
	run ctl vm stop-test
	echo "# vtpmtest: $output" >&3
	assert_success
	assert_output --partial "lost 0 wrong 0"
}
