# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced within a lab host: a load under which threads move, and where KVM entered its guests.

# Busy processes, all on one CPU, then all on the next: whoever may move has reason to.
spinners=()
load() { # N CPU…
	local _ n=$1
	shift
	for _ in $(seq "$n"); do
		sh -c 'while :; do :; done' &
		spinners+=($!)
	done
	(
		set +x
		while :; do
			for cpu; do
				for pid in "${spinners[@]}"; do
					taskset -cp "$cpu" "$pid"
				done
				sleep 1
			done
		done
	) >/dev/null &
	spinners+=($!)
}

unload() {
	kill "${spinners[@]}"
	spinners=()
}

# Where each vCPU entered its guest, by the kernel's own count of kvm_entry: "TID CPU TIMES" a line.
entries=/sys/kernel/tracing/events/kvm/kvm_entry
count_entries() {
	echo 'hist:keys=common_pid,common_cpu' >$entries/trigger
}
counted_entries() {
	sed -nE 's/^\{ common_pid: +([0-9]+), common_cpu: +([0-9]+) \} hitcount: +([0-9]+)$/\1 \2 \3/p' $entries/hist
	echo '!hist:keys=common_pid,common_cpu' >$entries/trigger
}
