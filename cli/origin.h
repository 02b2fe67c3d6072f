#ifndef LITEBUCKET_CLI_ORIGIN_H
#define LITEBUCKET_CLI_ORIGIN_H

/*
 * One database's decision; cli/decide.h has the table of them.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bucket/bucket.h"
#include "cli/decide.h"

struct spool;

/* What is known at the start. */
struct origin {
	char *path;
	char key[BUCKET_KEY_MAX]; /* its DB part; "": it has none */
	struct spool *spool;	  /* capture's, until something is adopted */
	uint64_t txid;		  /* position; 0: none */
	uint64_t dbsum;
	uint64_t first;		  /* TXID in the spool; 0: it is empty */
	uint64_t first_pre;	  /* the checksum that it goes on behind */
	bool behind;
	bool replaced;		  /* the file may be another than it was found */
};

struct origin_config {
	struct bucket *bucket;
	struct capture *capture;
	enum adopt adopt;
	int incoming_fd;
	bool (*in_use)(void *arg, const char *path); /* cli/decide.h */
	void *arg;
	const atomic_bool *insist; /* no answer is no decision */
	const volatile sig_atomic_t *cancel;
	/* Monotonic; the bucket did not answer, and is not asked before. */
	_Atomic int64_t *silent_until_ms;
};

int origin_init(struct origin *o, const struct capture_found *found);
void origin_cleanup(struct origin *o);

/*
 * 0: the database may be served.  Otherwise the sentence says why not, and what
 * to do; -ENOTUNIQ: a person has to say which state is meant.
 */
int origin_decide(const struct origin_config *config, struct origin *o);

/* Make .litebucket/incoming, empty it, and open it. */
int origin_clear_incoming(int dirfd, int *ret_fd);

#endif
