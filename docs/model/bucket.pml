/*
 * The bucket
 * ==========
 *
 * What append.pml and retention.pml share: batches, the slots of one
 * database's log, a put that may be late, repeated, or without a reply, and
 * the properties that the log itself must have.
 *
 * A database is the set of the commits in it, a bit for each.  A batch is what
 * takes it from one set to another; its bytes never change, and its number
 * here is its epoch and nonce in one: two batches are the same object only if
 * they have the same number.
 *
 * The network: slot_put() is two steps.  The first marks the batch as sent, and
 * from then on, for ever, the environment may execute the put at any moment,
 * however often, also when its sender is dead.  The second is the reply to a
 * try: the put is executed just then, or it meets a slot that is taken.  So a
 * reply that is lost is an execution by the environment and another try, and
 * a request that is delayed is one executed later.  Since a slot once taken
 * refuses every put, "however often" only matters after a deletion.
 *
 * lock.json is written on condition of its ETag, which is another after each
 * write (holder and serial).  So reading and writing it is one step; a
 * request for the lease that is executed late is a lease taken late, by a
 * process that may be dead by then.
 *
 * There is no time: a lease may be taken from its holder at any moment, and the
 * holder may find out arbitrarily late.
 */

#ifndef SLOTS
#define SLOTS 5		/* of the log */
#endif
#ifndef BATCHES
#define BATCHES 8	/* that are ever sealed, barriers included */
#endif
#ifndef EPOCHS
#define EPOCHS 3	/* that are taken at will */
#endif

/*
 * Properties.  Each is a variable that is never set, so that spin's report of
 * the assertion that failed has its name.
 */
bool in_order;	   /* a slot is filled once, and next after the head */
bool on_its_base;   /* ... with a batch made on the state at the head */
bool epochs_rise;   /* epochs in the log never fall, and each has one writer */
bool acknowledged;  /* what was acknowledged (durability: bucket) is in
			      the log, at once and for ever */
bool replica_exact; /* a batch laid over a replica gives the log's state */
#define must(property, condition) assert(property || (condition))

typedef Batch {
	byte txid;	/* its slot */
	byte pre;	/* the database before it, */
	byte post;	/* and after; a barrier changes nothing */
	byte epoch;	/* of its writer */
	byte writer;	/* a node; not in the bytes */
	bool sent	/* a put of it is under way, for ever */
};
Batch batch[BATCHES + 1];	/* 0: none; the empty database */
byte sealed;			/* so many there are */

byte slot[SLOTS + 2];	/* what the key 0000/N-N holds: a batch, or 0 */
byte log[SLOTS + 2];	/* what was put there first; the log itself */
byte head;		/* the last slot of the log */
byte acked;		/* the commits that were acknowledged */

#define LOG_STATE batch[log[head]].post
#define HEAD_EPOCH batch[log[head]].epoch
#define ROOM (sealed < BATCHES)
#define NAME(n) (65 + (n))

/* A batch gets its number, and with it its bytes. */
inline new_batch(its_txid, its_pre, its_post, its_epoch, its_writer)
{
	sealed++;
	batch[sealed].txid = its_txid;
	batch[sealed].pre = its_pre;
	batch[sealed].post = its_post;
	batch[sealed].epoch = its_epoch;
	batch[sealed].writer = its_writer
}

/* The log grows by batch b. */
inline log_append(b)
{
	must(in_order, batch[b].txid == head + 1);
	must(on_its_base, batch[b].pre == LOG_STATE);
	must(epochs_rise, batch[b].epoch > HEAD_EPOCH || (batch[b].epoch == HEAD_EPOCH && batch[b].writer == batch[log[head]].writer));
	must(acknowledged, (acked & ~batch[b].post) == 0);
	head = batch[b].txid;
	log[head] = b
}

/* The bucket executes a put of batch b; its slot is free. */
inline bucket_put_if_absent(b)
{
	slot[batch[b].txid] = b;
	if
	:: log[batch[b].txid] == 0 -> log_append(b)
	:: else -> printf("  the slot was freed by retention, and is taken again: it is not the log's\n")
	fi
}

/* A commit is acknowledged. */
inline acknowledge(commits)
{
	acked = acked | (commits);
	must(acknowledged, (acked & ~LOG_STATE) == 0)
}

/*
 * Is the object in a slot ours?  The whole is compared.  Without the nonce two
 * barriers for one slot are equal, whoever made them.
 */
#ifdef NO_NONCE
#define SAME(x, y) (x == y || (batch[x].txid == batch[y].txid && batch[x].pre == batch[y].pre && batch[x].post == batch[y].post))
#else
#define SAME(x, y) (x == y)
#endif
