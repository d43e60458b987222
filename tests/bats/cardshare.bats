#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# cardshare: the daemon over unix sockets and shared memory, with clients of this machine.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

load helpers/cardshare

# serve [ARG]...: the daemon, with $dir/conf if nothing is said; returns when it is ready
serve() {
	[ $# != 0 ] || set -- --config "$dir/conf"
	: >"$dir/log"
	cardshare serve -v --control "$dir/control" "$@" >>"$dir/log" 2>&1 3>&- &
	daemon=$!
	echo "$daemon" >>"$dir/pids"
	until cardshare stat -q --control "$dir/control" >/dev/null 2>&1; do
		kill -0 "$daemon" || return 1
		sleep 0.02
	done
}

count_of() { # fd|task
	find "/proc/$daemon/$1" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l
}

setup() {
	dir=$BATS_TEST_TMPDIR
	cat >"$dir/conf" <<-END
		[daemon]
		audit = $dir/audit
		[card main]
		driver = soft
		store = $dir/store
		[vm web]
		ivshmem = $dir/web
		unix = $dir/web.sock
		ecc.1 = web sign verify export
		[vm db]
		ivshmem = $dir/db
		unix = $dir/db.sock
		weight = 400
	END
}

teardown() {
	local pid
	# It ends what it started; killed, it could not.
	[ ! -e "$BATS_TEST_TMPDIR/manager" ] || kill "$(cat "$BATS_TEST_TMPDIR/manager")" 2>/dev/null || true
	[ ! -e "$BATS_TEST_TMPDIR/pids" ] || while read -r pid; do
		kill -KILL "$pid" 2>/dev/null || continue
		wait "$pid" 2>/dev/null || true
	done <"$BATS_TEST_TMPDIR/pids"
}

@test "every operation, over shared memory and over a socket" {
	serve
	for op in echo random sm3 hmac sm4-ecb sm4-cbc sm4-cfb sm4-ofb sm4-ctr sm4-mac sm4-gcm sm2-sign sm2-verify; do
		for way in "shm:$dir/web" "unix:$dir/web.sock"; do
			run -0 --separate-stderr cardshare speed -o "$op" -d 100ms -n 4 --json "$way"
			[ "$(jq '.requests > 0' <<<"$output")" = true ]
		done
	done
	[ "$(stat_of '.vms[0].errors')" = 0 ]
}

@test "keys: made, listed, imported, destroyed; a daemon that runs sees them" {
	serve
	run -0 cardshare keys make web --store "$dir/store"
	run -3 --separate-stderr cardshare keys make web --store "$dir/store"
	assert_equal "$stderr" "cardshare: make key web: there is one of this name"
	openssl genpkey -algorithm SM2 -out "$dir/pem" 2>/dev/null
	run -0 cardshare keys import old --from "$dir/pem" --store "$dir/store"
	run -0 cardshare keys --store "$dir/store" --json
	assert_equal "$(jq -r .name <<<"$output" | tr '\n' ' ')" "old web "
	want=$(openssl pkey -in "$dir/pem" -pubout -outform DER 2>/dev/null | tail -c 65 | od -An -tx1 | tr -d ' \n')
	assert_equal "$(jq -r 'select(.name == "old").sign_public' <<<"$output")" "$want"
	run -0 cardshare keys destroy old --store "$dir/store"
	run -3 cardshare keys destroy old --store "$dir/store"
	run -0 cardshare keys destroy web --dry-run --store "$dir/store"
	[ -e "$dir/store/web.key" ]
	# Nothing of a key is in clear in its file.
	run -1 grep -qa web "$dir/store/web.key"
}

@test "a store's key that others can read is refused" {
	run -0 cardshare keys make web --store "$dir/store"
	chmod 644 "$dir/store/.key"
	run -3 --separate-stderr cardshare keys --store "$dir/store"
	assert_output ''
	[[ $stderr == *"others may read it"* ]]
	run -3 --separate-stderr cardshare serve --config "$dir/conf" --control "$dir/control"
	[[ $stderr == *"others may read it"* ]]
}

@test "clients that are killed in the middle are not missed" {
	serve
	for _ in 1 2 3; do
		for way in "shm:$dir/web" "unix:$dir/web.sock"; do
			cardshare speed -o sm4-cbc -n 16 -d 30s "$way" >/dev/null 2>&1 3>&- &
			echo $! >>"$dir/pids"
			becomes '[.vms[0].links[] | select(.app == "speed")] | length' 1
			kill -KILL $!
			becomes '[.vms[0].links[] | select(.app == "speed")] | length' 0
		done
	done
	assert_equal "$(stat_of '.vms[0].sessions')" 0
	assert_equal "$(stat_of '.vms[0].objects')" 0
	run -0 cardshare speed -o sm4-cbc -d 20ms "shm:$dir/db"
	assert_equal "$(stat_of '.vms[1].errors')" 0
}

@test "nothing leaks over a hundred connections" {
	serve
	for _ in $(seq 5); do cardshare speed -o sm4-cbc -d 1ms "shm:$dir/web" >/dev/null; done
	becomes '.vms[0].regions | length' 0
	before=$(count_of fd)
	for _ in $(seq 50); do
		cardshare speed -o sm4-cbc -d 1ms "shm:$dir/web" >/dev/null
		cardshare speed -o sm4-cbc -d 1ms "unix:$dir/web.sock" >/dev/null
	done
	becomes '[.vms[0].regions, .vms[0].links] | add | length' 0
	assert_equal "$(count_of fd)" "$before"
	run -1 grep -q memfd "/proc/$daemon/maps"
}

# On a card whose speed is a clock's: who asks always has the next request there in time.
@test "weights: who has four times the weight gets four times the card's time" {
	cat >"$dir/conf" <<-END
		[card clock]
		driver = slow:2M
		[vm one]
		unix = $dir/one
		[vm four]
		ivshmem = $dir/four
		weight = 400
	END
	serve
	for way in "unix:$dir/one" "shm:$dir/four"; do
		cardshare speed -o sm4-cbc -n 24 -d 60s "$way" >/dev/null 2>&1 3>&- &
		echo $! >>"$dir/pids"
	done
	becomes '[.vms[].requests > 30] | all' true
	read -r one four < <(stat_of '[.vms[].requests] | @tsv')
	becomes ".vms[0].requests > $one + 150" true
	read -r one_now four_now < <(stat_of '[.vms[].requests] | @tsv')
	ratio=$(awk -v a=$((one_now - one)) -v b=$((four_now - four)) 'BEGIN { printf "%.2f", b / a }')
	echo "ratio $ratio"
	awk -v r="$ratio" 'BEGIN { exit !(r > 3.6 && r < 4.4) }'
}

@test "SIGHUP: a VM is added, one goes, the rest keep their links" {
	serve
	cardshare speed -o echo -d 20s "unix:$dir/web.sock" >"$dir/speed" 2>&1 3>&- &
	speed=$!
	echo $speed >>"$dir/pids"
	becomes '.vms[0].links | length' 1
	sed -i "/^\[vm db\]/,\$d" "$dir/conf"
	printf '[vm new]\nunix = %s/new.sock\n' "$dir" >>"$dir/conf"
	kill -HUP "$daemon"
	becomes '[.vms[].name] | join(" ")' 'web new'
	[ ! -e "$dir/db.sock" ]
	run -0 cardshare speed -o echo -d 10ms "unix:$dir/new.sock"
	assert_equal "$(stat_of '.vms[0].links | length')" 1
	kill -0 $speed
	echo nonsense >>"$dir/conf"
	kill -HUP "$daemon"
	timeout 10 tail -n +1 -f --pid=$$ "$dir/log" | grep -m 1 'nothing is changed'
	assert_equal "$(stat_of '[.vms[].name] | join(" ")')" 'web new'
}

@test "a configuration that others may write is refused, and so is one that makes no sense" {
	chmod 666 "$dir/conf"
	run -3 --separate-stderr cardshare serve --config "$dir/conf" --control "$dir/control"
	[[ $stderr == *"others may write it"* ]]
	chmod 600 "$dir/conf"
	for line in 'weight = 0' 'memory = 3M' 'vsock = 2' 'ecc.0 = web sign' 'ecc.1 = web fly' 'ecc.1 = ../web sign' \
		'allow = everything' 'unix = relative' 'card = nothere' 'colour = red'; do
		sed "\$a $line" "$dir/conf" >"$dir/bad"
		run -3 --separate-stderr cardshare serve --config "$dir/bad" --control "$dir/control"
		[[ $stderr == "cardshare: "*"$dir/bad"* ]]
	done
	run -3 --separate-stderr cardshare serve --config "$dir/none"
	assert_equal "$stderr" "cardshare: read $dir/none: No such file or directory"
}

@test "two VMs at one address are refused" {
	sed -i "s|db.sock|web.sock|" "$dir/conf"
	run -3 --separate-stderr cardshare serve --config "$dir/conf" --control "$dir/control"
	[[ $stderr == *"have the same address"* ]]
}

@test "without a file; and it ends by a signal, and cleans up" {
	serve --card null a=unix:"$dir/a" b=ivshmem:"$dir/b"
	run -0 cardshare speed -o sm4-cbc -d 10ms "unix:$dir/a"
	run -0 cardshare speed -o sm4-cbc -d 10ms "shm:$dir/b"
	kill -TERM "$daemon"
	status=0
	wait "$daemon" || status=$?
	assert_equal "$status" 143
	[ ! -e "$dir/a" ] && [ ! -e "$dir/b" ] && [ ! -e "$dir/control" ]
	run -2 cardshare serve a=tcp:1
	run -2 cardshare serve --config x a=unix:/x
}

@test "a daemon that is killed: the next takes over its sockets, and clients go on" {
	serve
	cardshare speed -o echo -d 3s "unix:$dir/web.sock" >/dev/null 2>&1 3>&- &
	echo $! >>"$dir/pids"
	becomes '.vms[0].links | length' 1
	kill -KILL "$daemon"
	wait "$daemon" || true
	serve
	run -0 cardshare speed -o echo -d 10ms "unix:$dir/web.sock"
	run -0 cardshare speed -o echo -d 10ms "shm:$dir/web"
}

@test "a daemon killed under a service manager: shared memory stays, and calls go on" {
	"$BATS_TEST_DIRNAME/helpers/fdstore" "$dir/notify" "$dir/daemon" \
		cardshare serve -v --config "$dir/conf" --control "$dir/control" >"$dir/log" 2>&1 3>&- &
	manager=$!
	echo $manager >"$dir/manager"
	becomes '.vms | length' 2
	cardshare speed -o sm3 -n 4 -d 6s --reconnect --json "shm:$dir/web" >"$dir/speed" 3>&- &
	speed=$!
	echo $speed >>"$dir/pids"
	becomes '.vms[0].requests > 100' true
	for signal in KILL TERM; do
		old=$(cat "$dir/daemon")
		kill -$signal "$old"
		becomes ".pid != $old and .vms[0].requests > 100" true
	done
	memory=$(find "/proc/$(cat "$dir/daemon")/fd" -lname '*memfd:web*' | wc -l)
	wait $speed
	assert_equal "$memory" 1
	[ "$(jq '.requests > 300' "$dir/speed")" = true ]
	assert_equal "$(grep -c 'peer [0-9]* goes on' "$dir/log")" 2
	becomes '.vms[0].regions | length' 0
	kill $manager
	wait $manager || true
}

@test "one region for all is another thing, and says so" {
	serve --shared-region 16M a=ivshmem:"$dir/a" b=ivshmem:"$dir/b"
	grep -q 'every VM can read and change' "$dir/log"
	run -0 cardshare speed -o echo -d 20ms "shm:$dir/a"
	run -0 cardshare speed -o echo -d 20ms "shm:$dir/b"
}

@test "a card with a stated speed has that speed" {
	serve --card slow:1M a=unix:"$dir/a" b=ivshmem:"$dir/b"
	run -0 cardshare speed -o sm4-cbc -s 4K -n 8 -d 1s --json "shm:$dir/b"
	awk -v r="$(jq .requests_per_s <<<"$output")" 'BEGIN { exit !(r > 200 && r < 280) }' # 256
}

@test "the daemon is one thread" {
	serve
	run -0 cardshare speed -o sm4-ctr -d 50ms -l 4 "unix:$dir/web.sock"
	assert_equal "$(count_of task)" 1
}

@test "stat as Prometheus' text; without a daemon it says so" {
	serve
	cardshare speed -o echo -d 10ms "unix:$dir/web.sock"
	run -0 --separate-stderr cardshare stat --control "$dir/control" --prometheus
	assert_line --regexp '^cardshare_vm_requests_total\{vm="web"\} [1-9][0-9]*$'
	run -3 --separate-stderr cardshare stat --control "$dir/none"
	[[ $stderr == *"is 'cardshare serve' running?"* ]]
}
