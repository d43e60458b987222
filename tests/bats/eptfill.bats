#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# eptfill where no KVM is needed: words, refusals, memtest, and host memory of an emulated VM.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

PATH=${O:-$BATS_TEST_DIRNAME/../../build}/bin:$PATH

teardown() {
	[ ! -s "$BATS_TEST_TMPDIR/pid" ] || kill "$(cat "$BATS_TEST_TMPDIR/pid")" || true
}

# A QEMU that has set up its machine and never ran it; $qmp is its monitor.
machine() {
	qmp=$BATS_TEST_TMPDIR/qmp
	qemu-system-x86_64 -S -accel tcg -M q35 -m "$1" -name guest=filled -nodefaults -display none \
		-qmp "unix:$qmp,server=on,wait=off" >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	pid=$!
	echo "$pid" >"$BATS_TEST_TMPDIR/pid"
	for _ in $(seq 200); do
		[ ! -S "$qmp" ] || break
		sleep 0.05
	done
	eptfill stat "qmp:$qmp" >/dev/null # it greets when all is set up
}

threads() {
	ls "/proc/$pid/task" | wc -l
}

resident_kib() {
	awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status"
}

@test "wrong words are told, with status 2" {
	run -2 --separate-stderr eptfill
	run -2 --separate-stderr eptfill fill
	assert_regex "$stderr" '^eptfill: fill: a target is missing'
	run -2 --separate-stderr eptfill fill --duty 0 pid:1
	run -2 --separate-stderr eptfill fill --duty 101 pid:1
	run -2 --separate-stderr eptfill fill --stall 2s pid:1
	run -2 --separate-stderr eptfill watch --interval 1ms pid:1
	run -2 --separate-stderr eptfill fill pid:zero
	run -2 --separate-stderr eptfill run --settle 0 -- true
	run -2 --separate-stderr eptfill memtest 3
	run -2 --separate-stderr eptfill memtest --write-size 0
	run -2 --separate-stderr eptfill verify --for soon pid:1
}

@test "what is not there is refused, with status 3" {
	run -3 --separate-stderr eptfill fill "qmp:$BATS_TEST_TMPDIR/none"
	run -3 --separate-stderr eptfill fill pid:4194303
	assert_regex "$stderr" 'no such process'
	run -3 --separate-stderr eptfill stat "pid:$$"
	assert_regex "$stderr" 'not a QEMU'
	run -3 --separate-stderr eptfill verify no-vm-of-this-name
}

@test "memtest: the thesis's lines, smaller" {
	run -0 --separate-stderr eptfill memtest --alloc-size 3M --alloc-count 2 --write-size 1M --write-count 3
	assert_regex "${lines[0]}" '^0 +use 3M memory +at [0-9a-f]+$'
	assert_regex "${lines[1]}" '^1 +use 6M memory +at [0-9a-f]+$'
	assert_equal "${lines[2]}" "Free 3M memory"
	assert_regex "${lines[6]}" '^2 +use 3M memory +at +[0-9a-f]+ +[0-9.]+ ms$'
	assert_regex "${lines[-1]}" '^written at first '
}

@test "memtest: JSON, and what is written is resident" {
	run -0 --separate-stderr eptfill memtest --json --alloc-count 0 --write-size 8M --write-count 4
	assert_equal "${#lines[@]}" 5
	assert_equal "$(jq -r .schema <<<"${lines[-1]}")" util-vm/eptfill/memtest-summary/1
	assert_equal "$(jq .written_bytes <<<"${lines[-1]}")" $((32 << 20))
	assert_equal "$(jq -s '[.[0:4][].touch_ns] | add' <<<"$output")" "$(jq .touch_ns <<<"${lines[-1]}")"
	# Not written means not there: 64 GiB of address space.
	run -0 --separate-stderr eptfill memtest --alloc-size 16G --alloc-count 4 --write-count 0
}

@test "memtest: what does not fit is refused before anything is allocated" {
	run -3 --separate-stderr eptfill memtest --write-size 1G --write-count 60000
	assert_output ""
	assert_regex "$stderr" 'are needed, .* are available'
	run -3 --separate-stderr eptfill memtest -n --write-size 1G --write-count 60000
}

@test "run: becomes the command, in its own environment" {
	LD_PRELOAD='' run -7 --separate-stderr eptfill run -- sh -c 'echo "[$LD_PRELOAD$EPTFILL_SHIM]"; exit 7'
	assert_output "[]"
	LD_PRELOAD='' run -0 eptfill run -- sh -c 'grep -c eptfill-shim /proc/self/maps || true'
	assert_output 0 # what it starts has it not
	run -0 eptfill run -- sh -c 'grep -q eptfill-shim /proc/$$/maps && echo there'
	assert_output there
}

@test "run: refusals" {
	run -3 --separate-stderr eptfill run -- no-program-of-this-name
	run -3 --separate-stderr eptfill run -- "$(command -v busybox)" true
	assert_regex "$stderr" 'statically linked'
	run -3 --separate-stderr eptfill run -- qemu-system-x86_64 -m 90T
	assert_regex "$stderr" 'are needed, .* are available'
	run -0 --separate-stderr eptfill run -n -- qemu-system-x86_64 -m 64M
	assert_regex "$output" 'eptfill-shim.so preloaded, 64.0 MiB of memory'
}

@test "run: an emulated VM is none the worse" {
	run -0 timeout 20 "$(command -v eptfill)" run -- qemu-system-x86_64 --version
	assert_regex "${lines[0]}" '^QEMU emulator'
}

@test "an emulated VM: refused, unless host memory is all that is wanted; then all of it is there" {
	local before
	machine 256M
	before=$(threads)
	run -3 --separate-stderr eptfill fill "qmp:$qmp"
	assert_regex "$stderr" 'no KVM machine.*--host-only'
	run -0 eptfill fill -n --host-only "qmp:$qmp"
	assert_regex "$output" 'guest 0x100000 host 0x[0-9a-f]+ 255.0 MiB ram pc.ram'
	[ "$(resident_kib)" -lt 200000 ]
	run -0 --separate-stderr eptfill fill --json --host-only --threads 3 "qmp:$qmp"
	[ "$(resident_kib)" -ge 262144 ]
	assert_equal "$(jq -r '.host_done, .host_threads, .host_bytes > 260000000, .status' <<<"$output" | xargs)" "true 3 true 0"
	# Its threads are its own again, and it answers.
	for _ in $(seq 100); do
		[ "$(threads)" != "$before" ] || break
		sleep 0.02
	done
	assert_equal "$(threads)" "$before"
	assert_equal "$(grep -h TracerPid /proc/"$pid"/task/*/status | sort -u)" "TracerPid:	0"
	run -0 eptfill stat --json "qmp:$qmp"
	assert_equal "$(jq -r '.kvm, .resident_bytes == .ram_mapping_bytes' <<<"$output" | xargs)" "false true"
	run -3 eptfill verify "qmp:$qmp"
	run -3 eptfill watch "qmp:$qmp"
}

@test "killed in the middle, the VM goes on, and the next fill finds all as it was" {
	local before i status killed=0
	machine 512M
	before=$(threads)
	for i in 1 2 3 4 5 6; do
		eptfill fill -q --host-only "qmp:$qmp" 3>&- &
		sleep "0.0$i"
		kill -KILL $! 2>/dev/null || true # the later ones may have come to their end
		status=0
		wait $! || status=$?
		[ "$status" != 137 ] || killed=$((killed + 1))
	done
	[ "$killed" -gt 0 ]
	run -0 eptfill fill --host-only "qmp:$qmp"
	for _ in $(seq 200); do
		[ "$(threads)" != "$before" ] || break
		sleep 0.05
	done
	assert_equal "$(threads)" "$before"
	[ "$(resident_kib)" -ge 524288 ]
	run -0 eptfill stat "pid:$pid"
}

@test "another user's VM: refused; by force its monitor is asked, if that may be reached" {
	local open nobody
	command -v setpriv >/dev/null || skip "setpriv is not here"
	[ "$(id -u)" = 0 ] || skip "becoming another user is for root"
	machine 128M
	open=$(mktemp -d)
	cp "$(command -v eptfill)" "$open/"
	chmod 755 "$open"
	ln "$qmp" "$open/qmp" 2>/dev/null || mount --bind "$qmp" "$open/qmp" || skip "the socket cannot be shown to another user"
	chmod 666 "$open/qmp"
	nobody="setpriv --reuid=65534 --regid=65534 --clear-groups $open/eptfill"
	run -3 --separate-stderr $nobody fill --host-only "qmp:$open/qmp"
	assert_regex "$stderr" 'Permission denied'
	[ "$(resident_kib)" -lt 131072 ]
	run -0 --separate-stderr $nobody fill --host-only --force "qmp:$open/qmp"
	assert_regex "$stderr" 'its monitor is asked'
	[ "$(resident_kib)" -ge 131072 ]
	rm -r "$open"
}
