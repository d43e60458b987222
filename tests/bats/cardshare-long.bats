#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# cardshare for long: ten million requests, a thousand guests killed, a thousand clients killed; what the daemon has
# of memory and descriptors is the same afterwards.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=long

load helpers/cardshare

setup() {
	dir=$BATS_TEST_TMPDIR
	cat >"$dir/conf" <<-END
		[daemon]
		control = $dir/control
		[card main]
		driver = soft
		[card apart]
		driver = soft
		workers = 1
		[vm web]
		card = main
		ivshmem = $dir/web
		unix = $dir/web.sock
		allow = all
		[vm db]
		card = apart
		ivshmem = $dir/db
		unix = $dir/db.sock
		allow = all
	END
	cardshare serve -q --config "$dir/conf" 3>&- &
	daemon=$!
	until cardshare stat -q --control "$dir/control" >/dev/null 2>&1; do
		kill -0 "$daemon"
		sleep 0.02
	done
}

teardown() {
	kill "$daemon"
	wait "$daemon" || true
}

# Of the daemon and of its worker, in KiB and in descriptors.
footprint() {
	for pid in "$daemon" $(ps -o pid= --ppid "$daemon"); do
		awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
		find "/proc/$pid/fd" -mindepth 1 | wc -l
	done | paste -s
}

# Descriptors as they were; memory not a megabyte more.
same_footprint() { # BEFORE
	local was now
	read -ra was <<<"$1"
	read -ra now <<<"$(footprint)"
	echo "# before: ${was[*]}, now: ${now[*]} (KiB, descriptors)" >&3
	assert_equal "${#now[@]}" 4
	assert_equal "${now[1]} ${now[3]}" "${was[1]} ${was[3]}"
	[ $((now[0] - was[0])) -lt 1024 ] && [ $((now[2] - was[2])) -lt 1024 ]
}

every_kind() { # DURATION ADDRESS…
	local time=$1 op
	shift
	for address; do
		for op in sm3 hmac sm4-cbc sm4-gcm sm2-sign sm2-verify random echo; do
			cardshare speed -o $op -d "$time" -n 16 -s 512 "$address" >/dev/null
		done
	done
}

@test "ten million requests of every kind: memory and descriptors stay" {
	every_kind 300ms "shm:$dir/web" "unix:$dir/web.sock" "shm:$dir/db" "unix:$dir/db.sock"
	becomes '[.vms[] | .regions, .links] | add | length' 0
	before=$(footprint)
	until [ "$(stat_of .requests)" -gt 10000000 ]; do
		every_kind 4s "shm:$dir/web" "unix:$dir/web.sock" "shm:$dir/db"
	done
	becomes '[.vms[] | .regions, .links] | add | length' 0
	echo "# $(stat_of .requests) requests, $(stat_of '[.vms[].errors] | add') errors" >&3
	same_footprint "$before"
	assert_equal "$(stat_of '[.vms[].errors] | add')" 0
}

# Stopped before their firmware runs: it is the device's connection that is cut.
@test "a thousand QEMUs, killed by kill -9: their memory is given back" {
	once() {
		qemu-system-x86_64 -M q35 -accel tcg -m 32 -nodefaults -no-user-config -display none -S \
			-chardev "socket,id=c,path=$dir/web" -device ivshmem-doorbell,chardev=c,vectors=4 3>&- &
		becomes '.vms[0].regions | length' 1
		kill -KILL $!
		wait $! || true
		becomes '.vms[0].regions | length' 0
	}
	for _ in $(seq 10); do once; done
	before=$(footprint)
	for _ in $(seq 1000); do once; done
	same_footprint "$before"
	run -1 grep -q cardshare-vm "/proc/$daemon/maps"
}

@test "a thousand clients, killed by kill -9 in the middle of requests: their slots are free" {
	once() {
		cardshare speed -o sm4-cbc -d 60s -n 16 "$1" >/dev/null 2>&1 3>&- &
		becomes "[.vms[$2].links[].inflight, .vms[$2].requests] | length > 1" true
		kill -KILL $!
		wait $! || true
		becomes '[.vms[] | .regions, .links] | add | length' 0
	}
	# shellcheck disable=SC2086 # words
	for way in "shm:$dir/web 0" "shm:$dir/db 1"; do once $way; done
	before=$(footprint)
	for _ in $(seq 250); do
		once "shm:$dir/web" 0
		once "unix:$dir/web.sock" 0
		once "shm:$dir/db" 1
		once "unix:$dir/db.sock" 1
	done
	same_footprint "$before"
	assert_equal "$(stat_of '[.vms[] | .sessions, .objects] | add')" 0
}
