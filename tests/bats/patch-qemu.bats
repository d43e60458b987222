#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# lib/patches/qemu, built into Debian's QEMU: -cpuid with guests by TCG here, prefill on real KVM in a lab host.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

helpers=$BATS_TEST_DIRNAME/helpers

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	tests/lab/build 3>&-
	local status=0 said
	said=$(tests/lab/patch-qemu 2>"$BATS_FILE_TMPDIR/said" 3>&-) || status=$?
	case $status in
	0) export QEMU=$said ;;
	3) skip "$(tail -n 1 "$BATS_FILE_TMPDIR/said")" ;;
	*)
		cat "$BATS_FILE_TMPDIR/said" >&2
		return 1
		;;
	esac
	export ASK=$PWD/${O:-build}/lab/bin/ask
	# Two CPUs that this process may run on; the same one twice where there is no second.
	mapfile -t cpus < <(allowed_cpus)
	export A=${cpus[0]} B=${cpus[1]:-${cpus[0]}}
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
	dir=$(mktemp -d /tmp/lab.XXXXXX)
}

teardown() {
	tests/lab/vm stop --dir "$dir" 2>/dev/null || true
	rm -rf "$dir"
}

allowed_cpus() {
	sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status | tr , '\n' |
		while IFS=- read -r from to; do seq "$from" "${to:-$from}"; done
}

two_cpus() {
	[ "$A" != "$B" ] || skip "only one CPU here"
}

# NAME=CPUS of each thread, sorted; threads that are alike are told once. call_rcu can have begun before it had a name.
threads() {
	local pid status
	pid=$(tests/lab/vm pid --dir "$dir")
	for status in /proc/"$pid"/task/*/status; do
		sed -n 's/^Name:\t//p; s/^Cpus_allowed_list:\t/=/p' "$status" 2>/dev/null | paste -sd ''
	done | sort -u
}

masks() {
	threads | sed 's/.*=//' | sort -u
}

# start CPUS LIST [WORD]...: a guest of that many vCPUs that has an iothread with a disk, and a sandbox
start() {
	local cpus=$1 list=$2
	shift 2
	truncate -s 1M "$dir/disk"
	tests/lab/vm start --dir "$dir" --qemu "$QEMU" --accel tcg --cpus "$cpus" --iothreads 1 -- \
		-cpuid "$list" -sandbox on,resourcecontrol=deny,spawn=deny,elevateprivileges=deny,obsolete=deny \
		-blockdev "file,node-name=disk,filename=$dir/disk,aio=threads" \
		-device virtio-blk-pci,drive=disk,iothread=io0 "$@"
}

# Workers end after 10 s without work: this makes a new one.
read_disk() {
	qmp '{"execute":"human-monitor-command","arguments":{"command-line":"qemu-io disk \"read 64k 64k\""}}'
}

qmp() {
	"$ASK" qmp "$dir/vm.mon" "$@"
}

refused() { # LIST TEXT
	run -1 --separate-stderr "$QEMU" -M none -nodefaults -display none -cpuid "$1"
	assert_regex "${stderr_lines[0]}" "-cpuid $1: $2\$"
	assert_equal "$output" ""
}

field() { # MOMENT NAME
	sed -n "s/^$1 .*\\b$2=\\([0-9]*\\).*/\\1/p" <<<"$output"
}

in_host() { # WORD...
	tests/lab/run kvm "$@" 3>&-
}

@test "the patches apply to Debian's source without fuzz, in their order" {
	run -0 --separate-stderr tests/lab/patch-qemu --unpack "$dir/qemu"
	assert_equal "$stderr" ""
	run -0 find "$dir/qemu" -name '*.rej' -o -name '*.orig'
	assert_output ""
	# What a patch promises in the manual is there in the program's help.
	run -0 "$QEMU" -help
	assert_line --partial "-cpuid list"
	assert_line --partial "prefill=on|off"
}

@test "a build that is there is used" {
	run -0 --separate-stderr timeout 20 tests/lab/patch-qemu
	assert_output "$QEMU"
	assert_equal "$stderr" ""
}

@test "cpuid: one CPU has all threads, in a sandbox, with workers that come later" {
	start 2 "$B"
	read_disk
	run -0 threads
	for name in 'IO io0' 'IO mon_iothread' worker 'CPU 0/TCG' 'CPU 1/TCG'; do
		assert_line "$name=$B"
	done
	run -0 masks
	assert_output "$B"
}

@test "cpuid: without it, threads may run where the caller may" {
	tests/lab/vm start --dir "$dir" --qemu "$QEMU" --accel tcg
	run -0 masks
	assert_output "$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)"
}

@test "cpuid: as many CPUs as vCPUs: each has its own, in the order of the list" {
	two_cpus
	start 2 "$B,$A"
	read_disk
	run -0 threads
	assert_line "CPU 0/TCG=$B"
	assert_line "CPU 1/TCG=$A"
	for name in qemu-system-x86 'IO io0' 'IO mon_iothread' worker; do
		assert_line --regexp "^$name=$A[-,]$B\$"
	done
}

@test "cpuid: a vCPU that is plugged later gets the CPU that was kept for it" {
	two_cpus
	start 1,maxcpus=2 "$A,$B" -cpu qemu64,+rdrand
	qmp '{"execute":"device_add","arguments":{"driver":"qemu64-x86_64-cpu","id":"c1","socket-id":0,"core-id":1,"thread-id":0}}'
	run -0 threads
	assert_line "CPU 0/TCG=$A"
	assert_line "CPU 1/TCG=$B"
}

@test "cpuid: fewer CPUs than vCPUs: all may run on all, and no helper stays behind" {
	two_cpus
	start 3 "$A,$B"
	run -0 threads
	assert_line --regexp "^CPU 2/TCG=$A[-,]$B\$"
	refute_line --partial "TC cpuid"
	[ "$(masks | wc -l)" = 1 ]
}

@test "cpuid: the last one counts" {
	two_cpus
	start 1 "$A" -cpuid "$B"
	run -0 masks
	assert_output "$B"
}

@test "cpuid: daemonized, it holds; with several CPUs and no right any more it is refused" {
	two_cpus
	"$QEMU" -M pc -smp 2 -S -accel tcg,thread=multi -nodefaults -display none -name debug-threads=on -daemonize \
		-cpuid "$B,$A" -pidfile "$dir/vm.pid" -qmp "unix:$dir/vm.qmp,server=on,wait=off" 3>&-
	run -0 threads
	assert_line "CPU 0/TCG=$B"
	assert_line "CPU 1/TCG=$A"
	assert_line --regexp "^call_rcu=$A[-,]$B\$"
	run -1 --separate-stderr "$QEMU" -M pc -smp 2 -S -nodefaults -display none -daemonize -cpuid "$B,$A" \
		-sandbox on,resourcecontrol=deny
	assert_regex "${stderr_lines[0]}" 'cpuid, CPU [0-9]+: .*Operation not permitted'
}

@test "cpuid: what is not a list is refused" {
	for list in '' x 1- 3-1 0-3:0 0-3: 0,,1 0, ,0 0x1 -1 0-1:2:3 '0 1' 99999999999999999999; do
		refused "$list" "'$list' is not a list of CPUs such as 0,3,7-11,0-31:2"
	done
	refused 65536 'CPU 65536 is above 65535'
	refused 0-4294967295:4294967295 'CPU 4294967295 is above 65535'
}

@test "cpuid: a CPU that is not there, or not ours, is refused by its number" {
	refused "$A,65535" 'CPU 65535 is offline, absent, or not in the cpuset of this process'
	refused 4000-4003 'CPU 4000 is offline, absent, or not in the cpuset of this process'
}

@test "prefill: all memory is mapped before the guest touches it, on q35, and again after resets in a row" {
	RESET=9 run -0 --separate-stderr in_host -- "$helpers/prefill-in-host" "$QEMU" "$dir/on" \
		--cpus 2 --mem 160M --timeout 200 --accel kvm,prefill=on -- -action reboot=reset
	sed 's/^/# /' <<<"$output" >&3
	for moment in up reset; do
		[ "$(field $moment mapped_mib)" -ge 160 ]
		[ "$(field $moment-touched pages)" -gt 15000 ]
		[ "$(field $moment-touched violations)" -eq 0 ]
	done
}

@test "prefill: by default a guest's touch is a violation" {
	run -0 --separate-stderr in_host -- "$helpers/prefill-in-host" "$QEMU" "$dir/off" --cpus 2 --mem 160M --timeout 200 --accel kvm
	sed 's/^/# /' <<<"$output" >&3
	[ "$(field up mapped_mib)" -lt 160 ]
	[ "$(field up-touched violations)" -gt 100 ]
}

@test "prefill: a kernel that cannot is told, before anything starts" {
	run -1 --separate-stderr in_host --kernel 6.1 -- "$QEMU" -M q35 -nodefaults -display none -accel kvm,prefill=on
	assert_regex "$stderr" 'prefill=on: KVM cannot fill second-level page tables: it needs Linux 6.11'
}
