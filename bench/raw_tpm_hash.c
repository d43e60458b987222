/* SPDX-License-Identifier: MIT */
/*
 * The limit: TPM2_Hash of 20 bytes on a kept unix socket for so many seconds, nothing
 * checked, nothing measured but the count. Prints operations a second.
 *   raw_tpm_hash SOCKET SECONDS
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	/* tag, size 38, TPM_CC_Hash, TPM2B of 20 bytes, sha1, TPM_RH_NULL */
	static const uint8_t command[38] = {
		0x80, 0x01, 0, 0, 0, 38, 0, 0, 0x01, 0x7d, 0, 20,
		[32] = 0, 4, 0x40, 0, 0, 7,
	};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	uint8_t answer[4096];
	double begun, end;
	uint64_t n = 0;
	int fd;

	if (argc != 3)
		return 2;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", argv[1]);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		perror(argv[1]);
		return 3;
	}
	begun = now();
	end = begun + atof(argv[2]);
	/* The clock is read once in 64, so that it does not count. */
	while (n % 64 || now() < end) {
		if (write(fd, command, sizeof(command)) != (ssize_t)sizeof(command) ||
		    read(fd, answer, sizeof(answer)) < 10 || answer[9]) {
			fprintf(stderr, "raw_tpm_hash: a call failed\n");
			return 1;
		}
		n++;
	}
	printf("%.0f\n", (double)n / (now() - begun));
	return 0;
}
