/* SPDX-License-Identifier: MIT */
#include "face/link.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct card_client *client;
static unsigned users;
static _Atomic unsigned process = 1;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/* The parent's client stays as it is: its locks may be held by threads that are not here. */
static void in_child(void)
{
	client = NULL;
	users = 0;
	process++;
	pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

unsigned face_link_process(void)
{
	return process;
}

int face_link_get(const char *address, struct card_client **out, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (!client)
		rc = card_client_open(address, NULL, &client, err);
	if (!rc) {
		users++;
		*out = client;
	} else {
		client = NULL;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void face_link_put(struct card_client *c)
{
	struct card_client *last = NULL;

	pthread_mutex_lock(&lock);
	if (c && c == client && !--users) {
		last = client;
		client = NULL;
	}
	pthread_mutex_unlock(&lock);
	card_client_close(last);
}
