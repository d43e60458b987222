/* SPDX-License-Identifier: MIT */
/* kvmcap NUMBER: what KVM_CHECK_EXTENSION says of that capability, of the system as a whole. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), value;

	if (argc != 2 || kvm < 0) {
		perror("kvmcap: /dev/kvm");
		return 4;
	}
	value = ioctl(kvm, KVM_CHECK_EXTENSION, atol(argv[1]));
	printf("%d\n", value);
	return value < 0;
}
