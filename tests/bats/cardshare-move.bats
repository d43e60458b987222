#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab
# shellcheck disable=SC2016 # what the guest is to expand
# A guest that computes on a card over ivshmem-doorbell is migrated by stock QEMU to another QEMU with another daemon, whose card has
# the same keys; device and all (master=on). Then back. Under TCG. By unplugging, and over vhost-vsock: cardshare-move-kvm.bats.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

card=$BATS_TEST_DIRNAME/../lab/card
O=$(realpath "${O:-$BATS_TEST_DIRNAME/../../build}")
PATH=$O/bin:$PATH
# QEMU before 9.0 loses pages under TCG where a RAM block is a multiple of 256 KiB.
export MEMORY=180232K

device() { # HOST
	echo -chardev "socket,id=card,path=$dir/$1/one.sock" -device ivshmem-doorbell,chardev=card,vectors=4,master=on
}

setup() {
	dir=$(mktemp -d /tmp/card.XXXXXX)
	mkdir "$dir/a" "$dir/b"
	cardshare keys --store "$dir/a/store" make one >/dev/null
	cardshare keys --store "$dir/a/store" --type sm4 make kek >/dev/null
	cp -r "$dir/a/store" "$dir/b/store"
	for host in a b; do
		cat >"$dir/$host/conf" <<-END
			[daemon]
			control = $dir/$host/control
			audit = $dir/$host/audit
			[card main]
			driver = soft
			store = $dir/$host/store
			[vm one]
			ivshmem = $dir/$host/one.sock
			migratable = yes
			allow = all
			ecc.1 = one all
			kek.1 = kek all
		END
		chmod 600 "$dir/$host/conf"
		cardshare serve -v --config "$dir/$host/conf" >"$dir/$host/log" 2>&1 3>&- &
		echo $! >>"$dir/pids"
	done
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || tail -n 5 "$dir"/*/*.log "$dir"/*/log
	"$card" stop one "$dir/a"
	"$card" stop one "$dir/b"
	# shellcheck disable=SC2046 # words
	kill $(cat "$dir/pids")
	rm -rf "$dir"
}

ops() { # HOST NAME
	cardshare stat --control "$dir/$1/control" --json | jq ".vms[0].ops.\"$2\" // 0"
}

move() { # FROM TO
	# shellcheck disable=SC2046 # words
	"$card" receive one "$dir/$2" "unix:$dir/$2/migrate" $(device "$2")
	"$O/lab/bin/ask" qmp "$dir/$1/one.qmp" '{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"events","state":true}]}}' \
		'{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":2000000000,"downtime-limit":1000}}' \
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"unix:$dir/$2/migrate\"}}" @MIGRATION:completed
	"$card" stop one "$dir/$1"
	before=$(ops "$2" aead)
	for ((i = 0; $(ops "$2" aead) < before + 50; i++)); do
		[ $i -lt 600 ]
		sleep 0.1
	done
}

@test "lab: to another daemon and back, device and all: goes on, each call answered once, nothing done twice" {
	# shellcheck disable=SC2046
	"$card" start one "$dir/a" $(device a)
	"$card" ctl one "$dir/a" 'load uio'
	"$card" ctl one "$dir/a" 'sh insmod /modules/uio_ivshmem.ko; /bin/sdf-steady /run/steady >/run/ready & echo $! >/run/pid; until grep -q ready /run/ready; do usleep 50000; done'
	move a b
	move b a
	run timeout 60 "$card" ctl one "$dir/a" 'sh kill $(cat /run/pid); wait $(cat /run/pid); echo "status $?"; cat /run/steady'
	assert_line 'status 0'
	assert_line --regexp '^gcm [0-9]+ done [0-9]+ unknown [0-2] .* failed 0 wrong 0 gap '
	read -r _ calls _ answered _ unknown _ <<<"${lines[-1]}"
	echo "# ${lines[-1]}, done by both cards $(ops a aead) + $(ops b aead)" >&3
	assert_equal "$calls" $((answered + unknown))
	[ $(($(ops a aead) + $(ops b aead))) -ge "$answered" ]
	[ $(($(ops a aead) + $(ops b aead))) -le "$calls" ]
	run -0 grep -c "came with another daemon's memory" "$dir/b/log"
	# The key pair was used on both hosts, and nothing was refused on either.
	for host in a b; do
		run -0 jq -es '([.[] | select(.class == "ecc") | .done] | add > 40) and all(.denied == null)' "$dir/$host/audit"
	done
}
