/* SPDX-License-Identifier: MIT */
/*
 * vif: a guest's interface, put on the lab's bridge, as libxl calls it (docs: xl-network-configuration, script=).
 * Xen's own vif-bridge does the same in ten seconds here: it starts hundreds of processes, and
 * that is what a PV dom0 without hardware is slow at. A guest stands still meanwhile when it moves.
 */
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/sockios.h>
#include <unistd.h>
#include <xenstore.h>

#define BRIDGE "lab0"

static int fail(const char *what)
{
	fprintf(stderr, "vif: ");
	perror(what);
	return 1;
}

static int put_on_bridge(const char *name)
{
	struct ifreq bridge = {.ifr_name = BRIDGE}, up = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(up.ifr_name, sizeof(up.ifr_name), "%s", name);
	bridge.ifr_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || ioctl(fd, SIOCBRADDIF, &bridge))
		return fail(name);
	if (ioctl(fd, SIOCGIFFLAGS, &up))
		return fail(name);
	up.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &up) ? fail(name) : 0;
}

/*
 * For five minutes the bridge sends a guest's frames to where it last saw its address: to the other host, if a guest of
 * that address was there. One that boots and only answers, as a vTPM does, would never be seen here.
 */
static int forget_addresses(void)
{
	const char *flush = "/sys/class/net/" BRIDGE "/bridge/flush";
	int fd = open(flush, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		return fail(flush);
	return close(fd);
}

int main(int argc, char **argv)
{
	const char *name = getenv("vif"), *path = getenv("XENBUS_PATH");
	struct xs_handle *xs;
	char node[256];

	if (argc < 2 || !name || !path)
		return fail("vif, XENBUS_PATH");
	if (strcmp(argv[1], "online") != 0 && strcmp(argv[1], "add") != 0)
		return 0;
	if (put_on_bridge(name) || forget_addresses())
		return 1;
	xs = xs_open(0);
	snprintf(node, sizeof(node), "%s/hotplug-status", path);
	if (!xs || !xs_write(xs, XBT_NULL, node, "connected", 9))
		return fail(node);
	return 0;
}
