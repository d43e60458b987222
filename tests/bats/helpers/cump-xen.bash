# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2154,SC2016
# A pair of domains on two Xen hosts, for the suites of cump-migrate. The hosts are booted once a file; between
# its tests the pair stays where the last one left it: in $home, and the other host is $away.
# In both hosts: /tmp/p, the lab pair's folder; /tmp/c, ours, with the journals sa (as a source) and sb.

bats_load_library bats-support
bats_load_library bats-assert

cd "${CUMP_ROOT:-$BATS_TEST_DIRNAME/../..}" || exit 1
helpers=$PWD/tests/bats/helpers
tool=${O:-build}/bin/cump-migrate

xen_setup_file() { # [OPTION of xen-pair start...]
	export hosts
	hosts=$(mktemp -d /tmp/cx.XXXXXX) # short: the name of a unix socket has 107 bytes
	local tries=1
	until tests/lab/run start xen-pair --dir "$hosts" 3>&- && on b mkdir -p /tmp/p && new_pair "$@"; do
		[ $tries -lt 3 ] || return 1
		tries=$((tries + 1))
		echo "# two hosts and a pair, start $tries" >&3
	done
}

xen_teardown_file() {
	[ -z "$hosts" ] || { tests/lab/run stop --dir "$hosts" && rm -rf "$hosts"; }
}

xen_setup() {
	d=$BATS_TEST_TMPDIR
	receive_options=() send_options=(--rendezvous 60s) receiver='' send_env=() pair=(--vm xen:pair --vtpm xen:pair-vtpm)
	where_is_it
	on a sh -c 'rm -rf /tmp/c && mkdir -p /tmp/c/sa /tmp/c/sb'
	on b sh -c 'rm -rf /tmp/c && mkdir -p /tmp/c/sa /tmp/c/sb'
	for host in a b; do
		on $host sh -c 'umask 077; printf "[vm]\ndomain = handed\n[vtpm]\ndomain = handed\n" >/tmp/c/pair'
	done
}

on() { # HOST COMMAND…
	local host=$1
	shift
	tests/lab/run on --dir "$hosts" --timeout "${on_timeout:-180}" "$host" -- "$@" 3>&-
}

new_pair() { # [OPTION…]
	on a sh -c 'for d in pair pair-vtpm; do xl destroy $d; done' 2>/dev/null || true
	on b sh -c 'for d in pair pair-vtpm; do xl destroy $d; done' 2>/dev/null || true
	on a tests/lab/xen-pair start --dir /tmp/p --timeout 300 "$@" 2>"$hosts/start.err" ||
		{ cat "$hosts/start.err" >&2 && return 1; }
	on a cat /tmp/p/pair.env >"$hosts/pair.env"
	on b sh -c 'cat >/tmp/p/pair.env' <"$hosts/pair.env"
	echo a >"$hosts/home"
}

where_is_it() {
	home=$(cat "$hosts/home") away=b address=10.76.0.2
	[ "$home" = a ] || away=a address=10.76.0.1
	# shellcheck disable=SC1091
	. "$hosts/pair.env"
}

moved() {
	echo "$away" >"$hosts/home"
	where_is_it
}

ctl() { # vm|vtpm LINE
	on "$home" tests/lab/xen-pair ctl --dir /tmp/p "$@"
}

# ---- the two ends ----

until_true() { # COMMAND...
	local tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ "$tries" -lt 1200 ] || fail "not within two minutes: $*"
		read -rt 0.1 _ <><(:) || true
	done
}

gone() { # PID
	! kill -0 "$1" 2>/dev/null
}

start_receiver() { # [OPTION...]
	: >"$d/receive.err"
	receiver_host=$away
	on_timeout=0 on "$away" sh -c 'echo $$ >/tmp/c/receive.pid && exec "$@"' sh "$tool" receive --insecure --pairs /tmp/c/pair \
		--run-dir /tmp/c/r --state-dir /tmp/c/sb "${receive_options[@]}" "$@" "tcp:$address:7070" \
		>"$d/receive.out" 2>"$d/receive.err" </dev/null &
	receiver=$!
	until_true listening_or_over
}

listening_or_over() {
	grep -q '^cump-migrate: listening at ' "$d/receive.err" || gone "$receiver"
}

# Its children serve to their end.
stop_receiver() {
	[ -n "$receiver" ] || return 0
	on "$receiver_host" sh -c 'kill "$(cat /tmp/c/receive.pid)"' 2>/dev/null || true
	wait "$receiver" || true
	receiver=
}

# move [OPTION...]: sets $status, $output, $stderr
move() {
	run --separate-stderr on "$home" env "${send_env[@]}" "$tool" send --insecure "${pair[@]}" --state-dir /tmp/c/sa \
		"${send_options[@]}" "$@" "tcp:$address:7070"
}

# What others than the guests wrote to their pages: a ring, a page of Xen's. More would be pages that we lost. Of move -v --verify.
few_unlogged() {
	local n
	n=$(grep -c 'no log tells of it: sent again' <<<"$stderr") || true
	echo "# frames written without the log: $n" >&3
	[ "$n" -le 8 ]
}

# ---- who runs where ----

# "pair pair-vtpm" by those that are there and neither paused nor shut down
runs_on() { # HOST
	on "$1" xl list | awk '$1 ~ /^pair(-vtpm)?$/ && $5 !~ /[psdc]/ { print $1 }' | sort | xargs
}

exist_on() { # HOST
	on "$1" xl list | awk '$1 ~ /^pair(-vtpm)?$|incoming/ { print $1 }' | sort | xargs
}

assert_only_at() { # HOST OTHER
	assert_equal "$(runs_on "$1")" "pair pair-vtpm"
	assert_equal "$(exist_on "$2")" ""
}

open_journals() {
	on a find /tmp/c/sa /tmp/c/sb -maxdepth 1 -name '*.s[io]*' -printf 'a:%f '
	on b find /tmp/c/sa /tmp/c/sb -maxdepth 1 -name '*.s[io]*' -printf 'b:%f '
}

assert_settled() {
	assert_equal "$(open_journals)" ""
}

# The guests answer, and the TPM has lost nothing.
assert_alive() {
	run -0 ctl vm sync alive
	assert_output --partial "synced alive"
}
