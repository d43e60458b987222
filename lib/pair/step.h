/* SPDX-License-Identifier: MIT */
/*
 * The steps of the protocol, in order, by the side that takes them. They make the
 * timeline of the report, the states of the journals, and the places where a test breaks
 * the protocol (--debug-at).
 */
#ifndef PAIR_STEP_H
#define PAIR_STEP_H

#define PAIR_SOURCE_STEPS(X)                                                                   \
	X(SEND_BEGIN, "send:begin", "journal opened, nothing else done")                       \
	X(SEND_REQUEST, "send:request", "connected; resources asked for")                      \
	X(SEND_RESERVED, "send:reserved", "the destination has room and empty members")        \
	X(SEND_STARTED, "send:started", "both pre-copies run")                                 \
	X(SEND_CONVERGED, "send:converged", "end condition met, both guests still run")        \
	X(SEND_STOPPED, "send:stopped", "both guests stand still")                             \
	X(SEND_STREAMED, "send:streamed", "all of both was sent")                              \
	X(SEND_PREPARED, "send:prepared", "the destination promised that it can start both")   \
	X(SEND_GO, "send:go", "the decision is durable, not yet sent")                         \
	X(SEND_DONE, "send:done", "both run at the destination, the source's copies remain")   \
	X(SEND_RELEASED, "send:released", "the source's copies and their state are destroyed") \
	X(SEND_END, "send:end", "the destination was told")

#define PAIR_SINK_STEPS(X)                                                                     \
	X(RECEIVE_REQUEST, "receive:request", "a pair was announced")                          \
	X(RECEIVE_RESERVED, "receive:reserved", "journal opened, memory and disk reserved")    \
	X(RECEIVE_LAUNCHED, "receive:launched", "both members' processes run, paused, empty")  \
	X(RECEIVE_DATA, "receive:data", "both listen, the source was told to begin")           \
	X(RECEIVE_RESTORED, "receive:restored", "both are whole and paused")                   \
	X(RECEIVE_PREPARED, "receive:prepared", "the promise is durable, not yet sent")        \
	X(RECEIVE_GO, "receive:go", "the decision has come, nothing started yet")              \
	X(RECEIVE_VTPM, "receive:vtpm", "the vTPM runs, the VM does not yet")                  \
	X(RECEIVE_STARTED, "receive:started", "both run, not yet durable")                     \
	X(RECEIVE_DONE, "receive:done", "durable; the source was told")                        \
	X(RECEIVE_END, "receive:end", "the source has released its copies")

enum pair_step {
#define X(id, name, what) STEP_##id,
	PAIR_SOURCE_STEPS(X) PAIR_SINK_STEPS(X)
#undef X
	STEP_COUNT
};

const char *pair_step_name(enum pair_step step);
const char *pair_step_what(enum pair_step step);

#endif
