#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154,SC2016,SC2030,SC2031 # set by helpers; the host's own
# pincore and eptfill on a real Xen: affinity of a domain's vCPUs, and its pages on demand.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab,long

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || exit
	export hosts
	hosts=$(mktemp -d /tmp/xt.XXXXXX)
	tests/lab/run start xen --cpus 2 --dir "$hosts" 3>&-
}

teardown_file() {
	tests/lab/run stop --dir "$hosts" && rm -rf "$hosts"
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || exit
	O=$(cd "${O:-build}" && pwd)
	on sh -c 'for d in web; do ! xl domid $d || xl destroy $d; done' >/dev/null 2>&1
}

on() { # COMMAND…
	tests/lab/run on --dir "$hosts" --timeout 120 a -- "$@" 3>&-
}

# A guest that boots to its control port; it stays paused until it is told.
guest() { # MEMORY MAXMEM
	on sh -c 'cat >/tmp/web.cfg && xl create -qp /tmp/web.cfg' 2>/dev/null <<-END
		type = "pvh"
		name = "web"
		memory = $1
		maxmem = $2
		vcpus = 2
		tsc_mode = "native"
		kernel = "$O/lab-xen/vmlinux"
		ramdisk = "$O/lab-xen/initramfs"
		cmdline = "console=hvc0 ctl=/dev/hvc0 loglevel=2 panic=-1 mitigations=off ipv6.disable=1 role=vm tpm=none"
	END
}

affinity() { # of vCPU 0: "HARD / SOFT" by Xen's own tool
	on xl vcpu-list web | awk '$3 == 0 { print $(NF - 2), $(NF - 1), $NF }'
}

@test "pincore pins a domain's vCPUs, shows it, and puts back what was there" {
	guest 128 128
	run affinity
	before=$output
	run -0 on "$O/bin/pincore" pin -n --vcpus 0,1 xen:web
	assert_line --regexp '^vcpu 1 .*-> 1, rather '
	assert_equal "$(affinity)" "$before"

	run -0 on "$O/bin/pincore" pin --vcpus 1,0 --json xen:web
	assert_line --partial '"vcpu":0,"hard":"1"'
	assert_line --partial '"vcpu":1,"hard":"0"'
	assert_regex "$(affinity)" '1 / '
	run -0 on "$O/bin/pincore" show xen:web
	assert_line --regexp '^vcpu 0 .* 1 .* 0,1$'
	run -0 on "$O/bin/pincore" show
	assert_line --partial 'pinned by pincore'

	# A second pin does not forget what was there before the first.
	run -0 on "$O/bin/pincore" pin --vcpus 0-1 --float --soft 1 xen:web
	assert_regex "$(affinity)" '/ 1$'
	run -0 on "$O/bin/pincore" undo xen:web
	assert_equal "$(affinity)" "$before"
	run -3 --separate-stderr on "$O/bin/pincore" undo xen:web
	assert_regex "$stderr" "nothing is recorded of it"
}

@test "pincore refuses CPUs that Xen has not, and what a domain has not; a domain's end is cleared up" {
	guest 128 128
	run -3 --separate-stderr on "$O/bin/pincore" pin --vcpus 0,7 xen:web
	assert_regex "$stderr" "CPU 7 is not one of the hypervisor's"
	run -3 on "$O/bin/pincore" pin --all 0-1 --isolate xen:web
	run -2 on "$O/bin/pincore" pin --emulator 1 xen:web
	run -3 on "$O/bin/pincore" pin --vcpus 0 xen:nosuch
	run -3 on "$O/bin/pincore" verify xen:web
	run -0 on "$O/bin/pincore" show
	refute_output --partial web
	on "$O/bin/pincore" pin --vcpus 0,1 xen:web
	on xl destroy web
	run -0 on "$O/bin/pincore" show
	assert_output --partial "ended"
	run -0 on "$O/bin/pincore" undo --all
	run -0 on "$O/bin/pincore" show
	assert_output ''
}

bytes() { # KEY
	grep -o "\"$1\":[0-9]*" <<<"$output" | cut -d: -f2
}

@test "eptfill tells a domain's pages on demand, and fills them: none is left, and it boots" {
	guest 96 160
	run -0 on "$O/bin/eptfill" stat --json xen:web
	[ "$(bytes on_demand_bytes)" -gt $((32 << 20)) ]
	[ "$(bytes cache_bytes)" -lt "$(bytes on_demand_bytes)" ]
	run -0 on "$O/bin/eptfill" fill -n xen:web
	assert_output --partial "dry run"
	run on "$O/bin/eptfill" fill --json xen:web
	assert_success
	assert_equal "$(bytes on_demand_bytes)" 0
	[ "$(bytes on_demand_before_bytes)" -gt $((32 << 20)) ]
	run -0 on "$O/bin/eptfill" stat xen:web
	assert_line --regexp 'second level +100.00 %'
	run -0 on "$O/bin/eptfill" fill xen:web
	on xl unpause web
	run -0 on sh -c 'ASK_TIMEOUT=60 "$1" ctl "$(xenstore-read "/local/domain/$(xl domid web)/console/tty")" ping' sh \
		"$O/lab/bin/ask"
	run -3 on "$O/bin/eptfill" verify xen:web
}

@test "eptfill refuses a fill for which Xen has no memory" {
	guest 96 160
	# A paused one takes what is free, but for a little.
	free=$(on xl info | awk '/^free_memory/ { print $3 }')
	on sh -c 'sed "s/web/other/; s/^memory.*/memory=$1/; s/^maxmem.*//" /tmp/web.cfg >/tmp/other.cfg &&
		xl create -qp /tmp/other.cfg' sh $((free - 40)) 2>/dev/null
	run -3 --separate-stderr on "$O/bin/eptfill" fill xen:web
	assert_regex "$stderr" "are missing, and the hypervisor has"
	run -0 on "$O/bin/eptfill" stat --json xen:web
	[ "$(bytes on_demand_bytes)" -gt $((32 << 20)) ]
	on xl destroy other
}
