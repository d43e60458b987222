#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Cards with a library of GM/T 0018, in worker processes. The library is a real one: cardshare's own, and so the card is
# one that another daemon shares. With a fault where a vendor's has one.
# shellcheck disable=SC2154 # stderr is set by run

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

root=$(realpath "$BATS_TEST_DIRNAME/../..")
O=$(realpath "${O:-$root/build}")
PATH=$O/bin:$PATH

# serve NAME [VARIABLE=VALUE…]: the daemon with $dir/NAME.conf, ready when its control socket answers
serve() {
	local name=$1
	shift
	chmod 600 "$dir/$name.conf"
	env "$@" cardshare serve -c "$dir/$name.conf" >>"$dir/$name.log" 2>&1 3>&- &
	echo $! >"$dir/$name.pid"
	until cardshare stat -q --control "$dir/$name.control" >/dev/null 2>&1; do
		kill -0 "$(cat "$dir/$name.pid")"
	done
}

end() { # NAME
	kill "$(cat "$dir/$1.pid")"
	while kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null; do sleep 0.02; done
}

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	local store=(--store "$dir/store")
	cardshare keys "${store[@]}" make one >/dev/null
	cardshare keys "${store[@]}" --type sm4 make kek >/dev/null
	echo open-sesame >"$dir/password"
	printf 0123456789abcdeffedcba9876543210 >"$dir/key"
	chmod 600 "$dir/password" "$dir/key"
	cardshare keys "${store[@]}" --password-file "$dir/password" make guarded >/dev/null
	cat >"$dir/far.conf" <<-END
		[daemon]
		control = $dir/far.control
		[card soft]
		driver = soft
		store = $dir/store
		[vm near]
		unix = $dir/far
		allow = all
		ecc.1 = one all
		ecc.2 = guarded all
		kek.1 = kek all
	END
	serve far
	cc -std=gnu11 -Wall -Wextra -Werror -O1 -pthread -I"$root/lib/face" -o "$dir/app" "$root/tests/sdf/app.c" \
		-L"$O/lib" -lsdf-cardshare -Wl,--as-needed,-rpath,"$O/lib" -lcrypto -ldl
	cc -std=gnu11 -Wall -Wextra -Werror -O1 -fPIC -shared -I"$root/lib/face" -o "$dir/broken.so" \
		"$root/tests/sdf/broken.c" -Wl,--no-as-needed -L"$O/lib" -lsdf-cardshare -Wl,-rpath,"$O/lib"
}

teardown_file() {
	kill "$(cat "$dir/far.pid")"
}

setup() {
	dir=$BATS_FILE_TMPDIR
	export CARDSHARE=unix:$dir/guest
}

teardown() {
	if [ -e "$dir/near.pid" ]; then
		end near
		rm "$dir/near.pid"
	fi
}

# near CARD-LINE…: a daemon whose cards these are, and one VM with keys in them
near() {
	{
		printf '[daemon]\ncontrol = %s\n' "$dir/near.control"
		printf '%s\n' "$@"
		printf '[vm guest]\nunix = %s\nivshmem = %s\nallow = all\n' "$dir/guest" "$dir/shm"
		printf 'ecc.1 = 1 all\necc.2 = 2 all\nkek.1 = 1 all\n'
		printf '[vm other]\nunix = %s\nallow = all\necc.2 = 2 all\n' "$dir/other"
	} >"$dir/near.conf"
	rm -f "$dir/near.log"
	serve near "CARDSHARE=unix:$dir/far"
}

workers() { # of the daemon, one a line
	ps -o pid= --ppid "$(cat "$dir/near.pid")"
}

encrypt() { # TEXT of 16 characters
	printf %s "$1" | cardshare enc -k "$dir/key" --alg sm4-ecb --no-padding
}

@test "sdf: the standards' own results, keys of the card, wrong calls, long ones, threads" {
	near "[card far]" "driver = sdf:$O/lib/libsdf-cardshare.so"
	for what in vectors keys errors lacks long "threads 8"; do
		# shellcheck disable=SC2086 # words
		run -0 "$dir/app" $what
		assert_output ""
	done
	CARDSHARE=shm:$dir/shm run -0 "$dir/app" vectors
	assert_output ""
	assert_equal "$(workers | wc -l)" 1
	assert_equal "$(ls "/proc/$(cat "$dir/near.pid")/task" | wc -l)" 1
	grep -q libsdf "/proc/$(workers | tr -d ' ')/maps"
	run -1 grep -q libsdf "/proc/$(cat "$dir/near.pid")/maps"
	# nothing of the VMs is in the worker
	run -1 grep -qE 'ivshmem|cardshare-vm' "/proc/$(workers | tr -d ' ')/maps"
	run -0 cardshare stat --control "$dir/near.control" --json
	run -0 jq -r '.cards[0] | "\(.state) \(.engine)"' <<<"$output"
	assert_output "ok util-vm cardshare soft"
}

@test "sdf: the right to a key that one VM got is not another's" {
	near "[card far]" "driver = sdf:$O/lib/libsdf-cardshare.so"
	echo data >"$dir/data"
	run -3 --separate-stderr cardshare sign -k 2 -a "unix:$dir/other" <"$dir/data"
	cardshare sign -k 2 -p "$dir/password" <"$dir/data" >"$dir/signature"
	cardshare verify -k 2 --signature "$dir/signature" <"$dir/data"
	run -3 --separate-stderr cardshare sign -k 2 -a "unix:$dir/other" <"$dir/data"
	echo wrong >"$dir/wrong"
	chmod 600 "$dir/wrong"
	run -3 --separate-stderr cardshare sign -k 2 -a "unix:$dir/other" -p "$dir/wrong" <"$dir/data"
	cardshare sign -k 2 -a "unix:$dir/other" -p "$dir/password" <"$dir/data" >"$dir/signature"
	cardshare verify -k 2 --signature "$dir/signature" <"$dir/data"
}

@test "sdf: a library that crashes or hangs fails that call only; others go on, keys and all" {
	near "[card far]" "driver = sdf:$dir/broken.so" "timeout = 1s"
	mkfifo "$dir/stdin"
	"$dir/app" until-eof <"$dir/stdin" >"$dir/steady" 3>&- &
	app=$!
	exec 9>"$dir/stdin"
	until [ -s "$dir/steady" ]; do kill -0 $app; done
	for fault in crash hang; do
		first=$(workers)
		run -4 --separate-stderr encrypt "$(printf '%-16s' $fault)"
		assert_equal "$stderr" "cardshare: enc: the card failed"
		until [ "$(cardshare stat --control "$dir/near.control" --json | jq -r '.cards[0].state')" = ok ]; do
			sleep 0.05
		done
		[ "$(workers)" != "$first" ]
		[ "$(encrypt 0123456789abcdef | wc -c)" = 16 ]
	done
	run -4 --separate-stderr encrypt "wrong----------1"
	assert_equal "$stderr" "cardshare: enc: the card answered SDR 0x7fff0001"
	exec 9>&-
	wait $app
	rm "$dir/stdin"
	run -0 tail -n 1 "$dir/steady"
	assert_output --regexp '^done [1-9][0-9]+ failed 0$'
}

@test "sdf: a second card takes over what the first fails at, and its keys" {
	near "[card bad]" "driver = sdf:$dir/broken.so" "timeout = 1s" "[card good]" "driver = soft"
	for _ in 1 2; do # sessions go to one card and to the other
		run -0 encrypt "crash----------1"
		assert_equal "${#output}" 16
	done
	run -0 --separate-stderr encrypt 0123456789abcdef
}

@test "workers: soft cards in processes, killed one by one under load" {
	near "[card soft]" "driver = soft" "workers = 2"
	assert_equal "$(workers | wc -l)" 2
	mkfifo "$dir/stdin"
	for n in 1 2 3; do
		"$dir/app" until-eof <"$dir/stdin" >"$dir/steady$n" 3>&- &
		apps[n]=$!
	done
	exec 9>"$dir/stdin"
	for n in 1 2 3; do until [ -s "$dir/steady$n" ]; do kill -0 "${apps[n]}"; done; done
	for _ in 1 2 3; do
		for pid in $(workers); do
			kill -KILL "$pid"
			until [ "$(cardshare stat --control "$dir/near.control" --json | jq -r '[.cards[].state] | unique[]')" = ok ] &&
				[ "$(workers | wc -l)" = 2 ] && ! workers | grep -qw "$pid"; do
				sleep 0.05
			done
		done
	done
	exec 9>&-
	wait "${apps[@]}"
	rm "$dir/stdin"
	for n in 1 2 3; do
		run -0 tail -n 1 "$dir/steady$n"
		assert_output --regexp '^done [1-9][0-9]+ failed 0$'
	done
	run -0 jq -e '[.cards[].name] == ["soft.1", "soft.2"] and ([.cards[].calls] | all(. > 0))' <(cardshare stat --control "$dir/near.control" --json)
}

@test "the daemon's end, even by kill -9, is its workers' end" {
	near "[card soft]" "driver = soft" "workers = 3"
	pids=$(workers)
	kill -KILL "$(cat "$dir/near.pid")"
	rm "$dir/near.pid"
	for pid in $pids; do
		for _ in $(seq 100); do
			[ -e "/proc/$pid" ] || break
			sleep 0.05
		done
		[ ! -e "/proc/$pid" ]
	done
}

@test "what is no such library, or no card, is refused with the reason" {
	cp "$O/lib/libcardshare.so" "$dir/none.so"
	for spec in "sdf:relative.so" "sdf:/no/such.so" "sdf:$dir/none.so"; do
		run -3 --separate-stderr cardshare serve --control "$dir/x" --card "$spec" "v=unix:$dir/v"
		assert_regex "$stderr" "open card card: "
	done
	assert_regex "$stderr" "none.so has no SDF_OpenDevice: it is no library of GM/T 0018"
	# its card is away: the daemon behind it is not there
	run -3 --separate-stderr env "CARDSHARE=unix:$dir/nowhere" cardshare serve --control "$dir/x" \
		--card "sdf:$O/lib/libsdf-cardshare.so" "v=unix:$dir/v"
	assert_regex "$stderr" "SDF_OpenDevice: SDR_"
	run -2 --separate-stderr cardshare serve --control "$dir/x" --card null --workers 17 "v=unix:$dir/v"
	assert_regex "$stderr" "workers: '17' is not 0 to 16"
	run -2 --separate-stderr cardshare serve --control "$dir/x" --card slow:1M --workers 1 "v=unix:$dir/v"
	assert_regex "$stderr" "slow has no use for them"
}
