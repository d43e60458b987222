#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The lab's host: a command in it behaves as outside, and its KVM is a real one.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	tests/lab/build 3>&-
	tests/lab/build-host 6.12 3>&-
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.."
}

@test "status, output, errors, input, directory and environment are the command's own" {
	local begun
	begun=$(date +%s%N)
	export LAB_WORD="two words"
	run -7 --separate-stderr tests/lab/run kvm --timeout 60 --out "$BATS_TEST_TMPDIR/out" -- sh -c '
		printf "a\000b\r\n" | od -An -c; pwd; echo "$LAB_WORD"; wc -c
		cut -d " " -f 1 /proc/uptime >"$1/up"; echo "to stderr" >&2; exit 7' sh "$BATS_TEST_TMPDIR/out" \
		< <(head -c 100000 /dev/zero)
	echo "# after $((($(date +%s%N) - begun) / 1000000)) ms; the host was up for $(cat "$BATS_TEST_TMPDIR/out/up") s" >&3
	assert_line -n 0 "   a  \\0   b  \\r  \\n"
	assert_line -n 1 "$PWD"
	assert_line -n 2 "two words"
	assert_line -n 3 "100000"
	[ "${#lines[@]}" = 4 ]
	# shellcheck disable=SC2154 # bats'
	[ "$stderr" = "to stderr" ]
}

@test "a signal, a timeout, much output, and nothing left behind" {
	run -137 tests/lab/run kvm -- sh -c 'kill -KILL $$'
	tests/lab/run kvm -- sh -c 'head -c 3000000 /dev/zero | tr "\000" x' >"$BATS_TEST_TMPDIR/much"
	[ "$(tr -d x <"$BATS_TEST_TMPDIR/much" | wc -c)-$(wc -c <"$BATS_TEST_TMPDIR/much")" = 0-3000000 ]
	run -124 tests/lab/run kvm --timeout 1 -- sh -c 'touch /etc/lab-was-here; sleep 100'
	[ ! -e /etc/lab-was-here ]
}

@test "bad words are refused before anything starts" {
	run -2 tests/lab/run kvm --cpus two -- true
	run -2 tests/lab/run kvm --module-param npt=1 -- true
	run -2 tests/lab/run kvm
	run -2 tests/lab/run xyz -- true
}

# In the host: a guest on KVM, whose counters move, and whose memory shows in them.
guest_on_kvm() {
	local dir=/tmp/guest
	tests/lab/vm start --dir $dir --mem 192M --cpus 2 --iothreads 1
	test "$(tests/lab/vm sh --dir $dir 'grep -c ^processor /proc/cpuinfo')" = 2
	set -- /sys/kernel/debug/kvm/"$(tests/lab/vm pid --dir $dir)"-*
	before=$(cat "$1/pf_taken")
	tests/lab/vm sh --dir $dir memtouch all
	echo "pf_taken $before to $(cat "$1/pf_taken"), $(cat "$1/exits") exits"
	test "$(cat "$1/exits")" -gt 0 && test "$(cat "$1/pf_taken")" -gt "$before"
	"${O:-build}"/lab/bin/ask qmp $dir/vm.mon '{"execute":"query-kvm"}'
	tests/lab/vm stop --dir $dir
	test ! -e "$1"
}

@test "6.12: a guest runs on it; pre-fault is there; vhost, cgroups, traces, too" {
	run -0 tests/lab/run kvm --timeout 300 -- bash -euc "$(declare -f guest_on_kvm)"'
		guest_on_kvm
		for dev in kvm vhost-vsock vhost-net net/tun; do true <>/dev/$dev; done
		modprobe -a uio vfio-pci tpm_vtpm_proxy msr
		mkdir /sys/fs/cgroup/a && echo 1 >/sys/fs/cgroup/a/cpuset.cpus && echo 64M >/sys/fs/cgroup/a/memory.max
		echo 2 >/proc/sys/vm/nr_hugepages && mount | grep -c hugetlbfs
		test -d /sys/kernel/tracing/events/kvm/kvm_page_fault
		"${O:-build}"/lab/bin/kvmcap 236'
	assert_line --partial '"enabled": true'
	assert_line --partial '"present": true'
	assert_line -n $((${#lines[@]} - 1)) 1
}

# bats test_tags=long
@test "6.1: a guest runs on it; no pre-fault" {
	run -0 tests/lab/run kvm --kernel 6.1 --timeout 300 -- bash -euc "$(declare -f guest_on_kvm)"'
		uname -r
		guest_on_kvm
		"${O:-build}"/lab/bin/kvmcap 236'
	assert_line -n 0 --partial 6.1.
	assert_line -n $((${#lines[@]} - 1)) 0
}

# bats test_tags=long
@test "a host whose CPUs stand still is taken for lost, and its command begun anew in another" {
	local out=$BATS_TEST_TMPDIR/out rc=0 run
	mkdir "$out"
	LAB_AGAIN=1 tests/lab/run kvm --out "$out" -- sh -c '[ ! -e "$1/up" ] || exit 7; touch "$1/up"; sleep 300' sh "$out" 3>&- &
	run=$!
	until [ -e "$out/up" ]; do
		kill -0 $run
		read -rt 0.1 _ <><(:) || true
	done
	for pid in $(pgrep -f "id=out,path=$out,"); do
		[ "$(cat "/proc/$pid/comm")" != qemu-system-x86 ] || kill -STOP "$pid"
	done
	wait $run || rc=$?
	assert_equal $rc 7
}
