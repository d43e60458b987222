#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab
# shellcheck disable=SC2016 # what the guest is to expand
# How a guest's programs get hold of ivshmem-doorbell: by nobody's driver (polling), by the UIO module of lib/patches/linux/uio, by
# vfio-pci as Debian has it, where there is an IOMMU. One guest with two devices. Under TCG; what unplugging does
# afterwards is for cardshare-kvm.bats: QEMU 7.2 without KVM leaves handlers of descriptors that it closed.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

card=$BATS_TEST_DIRNAME/../lab/card
PATH=${O:-$BATS_TEST_DIRNAME/../../build}/bin:$PATH
A=0000:01:00.0 B=0000:02:00.0

# A line of the control port each.
in_guest() { # COMMAND
	timeout 120 "$card" ctl one "$dir" "sh $(tr '\n' ' ' <<<"$1")"
}

bind() { # ADDRESS DRIVER
	in_guest "cd /sys/bus/pci/devices/$1; [ ! -e driver ] || echo $1 >driver/unbind; echo $2 >driver_override; echo $1 >/sys/bus/pci/drivers_probe;
		basename \"\$(readlink driver)\""
}

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	cardshare keys --store "$dir/store" make one >/dev/null
	cardshare keys --store "$dir/store" --type sm4 make kek >/dev/null
	cat >"$dir/conf" <<-END
		[daemon]
		control = $dir/control
		[card main]
		driver = soft
		store = $dir/store
		[vm one]
		ivshmem = $dir/one.sock
		allow = all
		ecc.1 = one all
		kek.1 = kek all
	END
	chmod 600 "$dir/conf"
	cardshare serve -v --config "$dir/conf" >"$dir/log" 2>&1 3>&- &
	echo $! >"$dir/daemon.pid"
	APPEND=intel_iommu=on "$card" start one "$dir" -device intel-iommu,intremap=on \
		-device pcie-root-port,id=p1,chassis=1,slot=1 -device pcie-root-port,id=p2,chassis=2,slot=2 \
		-chardev "socket,id=a,path=$dir/one.sock" -device ivshmem-doorbell,id=a,chardev=a,vectors=4,bus=p1 \
		-chardev "socket,id=b,path=$dir/one.sock" -device ivshmem-doorbell,id=b,chardev=b,vectors=4,bus=p2
	"$card" ctl one "$dir" 'load uio'
	"$card" ctl one "$dir" 'load vfio'
}

teardown_file() {
	"$card" stop one "$BATS_FILE_TMPDIR"
	kill "$(cat "$BATS_FILE_TMPDIR/daemon.pid")"
}

setup() {
	dir=$BATS_FILE_TMPDIR
}

@test "lab: the UIO module is built for Debian's 6.1 and 6.12" {
	for series in '6.1 cloud-amd64' '6.12 amd64'; do
		# shellcheck disable=SC2086 # words
		run -0 --separate-stderr "$BATS_TEST_DIRNAME/../lab/build-module" lib/patches/linux/uio $series
		run -0 /sbin/modinfo -F vermagic "$output"
		assert_output --regexp "^${series% *}\.[0-9.+-]*(deb[0-9]+-)?(cloud-)?amd64 SMP "
	done
}

@test "lab: no driver: the BARs by sysfs, polled" {
	run in_guest "cardshare speed -o echo -d 200ms ivshmem:$A"
	assert_line --regexp "by ivshmem:$A,queue=0 \(polling, by sysfs\)"
	run in_guest card-check
	assert_output --regexp 'card-check: [0-9]+ ok'
}

@test "lab: the UIO module: a node a vector, and reads of it are the doorbells" {
	in_guest 'insmod /modules/uio_ivshmem.ko'
	run in_guest 'cat /sys/class/uio/*/name | sort | uniq -c'
	for i in 0 1 2 3; do assert_line --regexp "2 ivshmem-$i"; done
	run in_guest "for q in 0 1 3; do cardshare speed -o echo -d 300ms --sleep ivshmem:$A,queue=\$q; done; grep ivshmem- /proc/interrupts"
	for i in 0 1 3; do
		assert_line --regexp "by ivshmem:$A,queue=$i \(MSI-X by /dev/uio[0-9]\)"
		# It slept, and was woken each time.
		assert [ "$(sed -n "s/.* \([0-9]*\) requests\/s.*queue=$i .*/\1/p" <<<"$output")" -gt 20 ]
		assert [ "$(awk "/ivshmem-$i\$/ { n = \$2 > n ? \$2 : n } END { print n }" <<<"$output")" -gt 20 ]
	done
	# As any program of UIO: wait in a read until the card rings.
	run in_guest "node=\$(basename \$(dirname \$(grep -l ivshmem-2 /sys/bus/pci/devices/$A/uio/uio*/name)));
		(timeout 20 dd if=/dev/\$node bs=4 count=1 2>/dev/null | wc -c) & cardshare speed -o echo -d 300ms --sleep ivshmem:$A,queue=2 >/dev/null; wait"
	assert_line 4
}

@test "lab: the UIO module: processes at once, each by its queue; an application of SDF" {
	run in_guest "for i in 1 2 3; do cardshare speed -o sm3 -d 1s --sleep ivshmem:$A & done; wait"
	for i in 0 1 2; do assert_line --regexp "queue=$i \(MSI-X by /dev/uio[0-9]\)"; done
	run in_guest card-check
	assert_output --regexp 'card-check: [0-9]+ ok'
	run in_guest "cardshare random -v --hex 8 ivshmem:/dev/uio0 2>&1; cardshare random -v -a ivshmem:/dev/uio1 --hex 8 2>&1"
	assert_line --regexp 'random: link ivshmem:.*\(MSI-X by /dev/uio[0-9]\)'
}

@test "lab: vfio-pci, nothing patched: BARs and MSI-X; one process at a time, and that is said" {
	run bind $B vfio-pci
	assert_line vfio-pci
	run in_guest "cardshare speed -o echo -d 300ms --sleep ivshmem:$B; grep vfio-msix /proc/interrupts"
	assert_line --regexp "by ivshmem:$B,queue=0 \(MSI-X by /dev/vfio/[0-9]+\)"
	assert [ "$(sed -n 's/.* \([0-9]*\) requests\/s.*/\1/p' <<<"$output")" -gt 20 ]
	run in_guest "CARDSHARE=ivshmem:$B card-check"
	assert_output --regexp 'card-check: [0-9]+ ok'
	run in_guest "cardshare speed -o echo -d 2s ivshmem:$B >/run/out & until grep -q vfio-msix /proc/interrupts; do usleep 20000; done;
		cardshare random -a ivshmem:$B --hex 8; echo \"status \$?\"; wait; cat /run/out"
	assert_line --partial 'another process has it; VFIO lets one at a time'
	assert_line 'status 3'
	assert_line --regexp 'requests/s'
}

# The connections to the guest and to QEMU are made before: see above.
@test "lab: vfio-pci: a device that is to be unplugged is let go, and the program lives" {
	ASK_TIMEOUT=60 "$card" ctl one "$dir" "sh CARDSHARE_TIMEOUT=2s cardshare speed -o sm3 -d 8s --reconnect ivshmem:$B; echo \"status \$?\"; ls /sys/bus/pci/devices; dmesg | grep -E 'BUG|WARNING|Oops'" \
		>"$dir/out" 3>&- &
	asked=$!
	until cardshare stat --control "$dir/control" --json | jq -e 'any(.vms[0].links[]; .app == "speed")'; do sleep 0.1; done
	run "${O:-$BATS_TEST_DIRNAME/../../build}/lab/bin/ask" qmp "$dir/one.qmp" '{"execute":"device_del","arguments":{"id":"b"}}' @DEVICE_DELETED:b
	assert_success
	wait $asked || true
	run cat "$dir/out"
	assert_line 'status 4'
	refute_line --partial $B
	refute_line --regexp 'BUG|WARNING|Oops'
}

# bats test_tags=long
@test "lab: all of it in a guest with Linux 6.12" {
	local root o
	root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	o=$(cd "$root" && cd "${O:-build}" && pwd)
	mkdir -p "$o/k6.12"
	ln -sfn ../bin "$o/k6.12/bin"
	ln -sfn ../lib "$o/k6.12/lib"
	run env -i PATH="$PATH" HOME="$HOME" BATS_LIB_PATH="${BATS_LIB_PATH:-}" O="$o/k6.12" LAB_KERNEL=6.12 \
		bats --formatter tap --filter-tags '!long' "$BATS_TEST_FILENAME" 3>&-
	echo "$output" | sed 's/^/# /' >&3
	assert_success
}
