#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab
# shellcheck disable=SC2016 # what the guest is to expand
# cardshare with guests on stock QEMU, over ivshmem-doorbell.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

card=$BATS_TEST_DIRNAME/../lab/card
load helpers/cardshare

guest() { # NAME SOCKET
	"$card" start "$1" "$dir" -chardev "socket,id=card,path=$dir/$2" \
		-device ivshmem-doorbell,chardev=card,vectors=4
}

in_guest() { # NAME COMMAND
	timeout 120 "$card" ctl "$1" "$dir" "sh $2"
}

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	cat >"$dir/conf" <<-END
		[daemon]
		control = $dir/control
		[card main]
		driver = soft
		store = $dir/store
	END
	cardshare keys --store "$dir/store" make one >/dev/null
	cardshare keys --store "$dir/store" --type sm4 make kek >/dev/null
	for name in one two more; do
		printf '[vm %s]\nivshmem = %s\nallow = all\necc.1 = one all\nkek.1 = kek all\n' $name "$dir/$name.sock"
	done >>"$dir/conf"
	chmod 600 "$dir/conf"
	# As under systemd, which holds descriptors for it.
	"$BATS_TEST_DIRNAME/helpers/fdstore" "$dir/notify" "$dir/daemon.pid" \
		cardshare serve -v --config "$dir/conf" >"$dir/log" 2>&1 3>&- &
	echo $! >"$dir/manager.pid"
	until [ -s "$dir/daemon.pid" ]; do
		kill -0 "$(cat "$dir/manager.pid")"
		sleep 0.02
	done
	guest one one.sock
	guest two two.sock
}

teardown_file() {
	local name
	for name in one two three more; do "$card" stop "$name" "$BATS_FILE_TMPDIR"; done
	kill "$(cat "$BATS_FILE_TMPDIR/manager.pid")" 2>/dev/null || true
}

setup() {
	dir=$BATS_FILE_TMPDIR
}

@test "guests find the device, and every operation works in both" {
	run in_guest one "cardshare list"
	assert_line --partial ivshmem
	for op in echo random sm3 sm4-cbc sm4-gcm sm2-sign sm2-verify; do
		for name in one two; do
			run in_guest "$name" "cardshare speed -o $op -n 4 -d 50ms --json"
			assert_success
			assert_line --partial '"requests":'
		done
	done
	assert_equal "$(stat_of '[.vms[].errors] | add')" 0
}

@test "the memory of each is its own" {
	for fd in "/proc/$(cat "$dir/daemon.pid")"/fd/*; do
		[[ $(readlink "$fd") == */memfd:* ]] || continue
		seals=$(python3 - "$fd" <<-'END'
			import fcntl, os, sys
			fd = os.open(sys.argv[1], os.O_RDWR)
			print(fcntl.fcntl(fd, 1034), os.fstat(fd).st_size)
		END
		)
		assert_equal "$seals" "7 4194304" # SEAL | SHRINK | GROW
	done
	[ "$(find "/proc/$(cat "$dir/daemon.pid")/fd" -lname '*memfd:one*' | wc -l)" = 1 ]
	[ "$(find "/proc/$(cat "$dir/daemon.pid")/fd" -lname '*memfd:two*' | wc -l)" = 1 ]
	run find "/proc/$(cat "$dir/one.pid")/fd" -lname '*memfd:two*'
	assert_output ''
}

@test "processes of one guest have a queue each" {
	in_guest one 'for i in 1 2 3; do cardshare speed -o echo -d 3s >/tmp/out.$i 2>&1 & done; sleep 0.1; true'
	becomes '.vms[0].links | length' 3
	run in_guest one 'wait; cat /tmp/out.*'
	assert_equal "$(grep -c 'requests/s' <<<"$output")" 3
}

@test "a guest that is killed in the middle is not missed, and comes back" {
	guest three two.sock
	in_guest three 'cardshare speed -o sm4-cbc -n 16 -d 100s >/dev/null 2>&1 & true'
	becomes '.vms[1].links | length' 1
	"$card" stop three "$dir"
	becomes '.vms[1].links | length' 0
	becomes '.vms[1].regions | length' 1
	run in_guest two "cardshare speed -o sm4-cbc -d 100ms"
	assert_success
	guest three two.sock
	run in_guest three "cardshare speed -o sm4-cbc -d 100ms"
	assert_success
	"$card" stop three "$dir"
}

# The words of the first queue's control block and first slots, written behind the back of a program that uses it.
@test "a guest that writes junk into its memory disturbs nobody" {
	in_guest one 'cardshare speed -o sm3 -n 8 -d 6s >/tmp/one.out 2>&1 & true'
	in_guest two 'cardshare speed -o echo -n 8 -d 3s >/dev/null 2>&1 & true'
	words='set -- $(sed -n 3p /sys/bus/pci/devices/0000:00:01.0/resource); i=0; while [ $i -lt 400 ]; do'
	words+=' devmem $(($1 + 4096 + 512 * (i % 2) + i * 4 % 512 + i / 128 * 16896)) 32 $((RANDOM * 65539)); i=$((i + 1)); done'
	run in_guest two "$words; devmem \$((\$1 + 4100)) 32"
	assert_success
	run in_guest one 'wait; cat /tmp/one.out'
	assert_output --partial 'requests/s'
	kill -0 "$(cat "$dir/daemon.pid")"
	assert_equal "$(stat_of '.vms[0].errors')" 0
	run in_guest two 'wait; cardshare speed -o echo -d 100ms'
	assert_output --partial 'requests/s'
}

# Each checks every result, and counts the calls that may not be sent twice: done, or nobody knows.
@test "a daemon killed under load of three guests, three times: all go on, each call is answered once, and right" {
	guest more more.sock
	for name in one two more; do
		in_guest $name 'CARDSHARE_TIMEOUT=60s /bin/sdf-steady /run/steady >/run/ready & echo $! >/run/pid; until grep -q ready /run/ready; do usleep 50000; done'
	done
	for _ in 1 2 3; do
		old=$(cat "$dir/daemon.pid")
		kill -KILL "$old"
		becomes ".pid != $old and ([.vms[].requests > 50] | all)" true
	done
	for name in one two more; do
		run in_guest $name 'kill $(cat /run/pid); wait $(cat /run/pid); echo "status $?"; cat /run/steady'
		assert_line 'status 0'
		assert_line --regexp '^gcm [0-9]+ done [0-9]+ unknown [0-3] .* failed 0 wrong 0 gap '
		read -r _ calls _ answered _ unknown _ <<<"${lines[-1]}"
		assert_equal "$calls" $((answered + unknown))
		echo "# $name: ${lines[-1]}" >&3
	done
	# QEMU noticed nothing: its memory and bells were held for the next daemon.
	[ "$(grep -c 'vm one: peer [0-9]* goes on' "$dir/log")" -ge 3 ]
	"$card" stop more "$dir"
}
