/*
 * Retention
 * =========
 *
 * Deleting a slot frees its key, and a late put could take it again.  So here
 * slots are deleted: by the primary's plan, which publishes the floor in
 * catalog.json first; and what was taken again must not count for anybody.
 *
 * Two nodes, A and B, a reader (follower), and one database.  A batch is a
 * commit of its own, and so the state after it has its number.  What
 * append.pml shows is not shown again: a node has one batch in its spool at
 * most, and the lease is taken, not released.
 *
 *	OFF -> TAKING -> RECOVERING -> PRIMARY
 *	 catalog_take()	  own spool, follow, barrier
 *
 * Time is a bit, "fresh": that the slot after the last one known was absent, and
 * not freed, was seen less than half of level 0's retention ago.  That ends at
 * any moment, and until then what is in the slot is too young to be deleted:
 * which is all there is to the cheap form of the floor (R15).
 *
 * "The floor is read after the slot" is one step here, since a floor that is
 * read still later is not lower, and so tells only more.
 */

#define SLOTS 4
#ifndef BATCHES
#define BATCHES 6
#endif
#ifndef PLANS
#define PLANS 2		/* of retention */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#include "bucket.pml"

bool floor_rises;	   /* the floor never falls */
bool no_stray;		   /* the holder of the newest epoch takes no freed slot */

mtype = { OFF, TAKING, RECOVERING, PRIMARY };

typedef Node {
	byte txid;		/* the last slot that is known */
	byte spool;		/* the batch for the slot after it, or 0 */

	mtype role;
	byte epoch;
	bool closed;		/* the barrier is confirmed */
	bool taken;		/* the catalog */
	byte floor;		/* as of then */
	bool at_end;		/* followed to the 404 */
	bool fresh;
	byte head_then;		/* the truth: the log's head when that was seen */

	/* In the network: a put of catalog.json. */
	byte new_floor;		/* or 0 */
	byte new_epoch;
	byte if_match		/* the catalog's version it is for */
};
Node node[2];
#define my node[n]

typedef Catalog {
	byte version;	/* its ETag */
	byte epoch;
	byte floor
};
Catalog catalog;

typedef Reader {
	byte txid;
	byte floor;	/* what it read last; of use only without the rule */
	bool fresh;
	byte head_then
};
Reader reader;

byte generation;	/* of lock.json */
byte plans, crashes;
byte b;			/* scratch */

#define HOLDS (my.epoch == generation)
#define NEXT (my.txid + 1)

/* The slot behind the last was seen absent, or is believed to be; or not any more. */
#define SEEN_ABSENT(who) who.fresh = true; who.head_then = head
#define TIME_PASSES(who) who.fresh = false; who.head_then = 0

/* ---- Take-over ---- */

inline node_stop()
{
	my.role = OFF;
	my.epoch = 0;
	my.closed = false;
	my.taken = false;
	my.floor = 0;
	my.at_end = false;
	TIME_PASSES(my)
}

inline lease_take()
{
	generation++;
	my.epoch = generation;
	my.role = TAKING;
	printf("%c  lease_take: epoch %d\n", NAME(n), my.epoch)
}

/*
 * The catalog is rewritten with the new epoch: older puts of it can then do
 * nothing any more, and the floor read with it stays what it is until we
 * change it.
 */
inline catalog_take()
{
	if
	:: catalog.epoch > my.epoch ->
		printf("%c  catalog_take: it has epoch %d; we are deposed\n", NAME(n), catalog.epoch);
		node_stop()
	:: else ->
#ifndef NO_CATALOG_TAKEN
		catalog.version++;
		catalog.epoch = my.epoch;
#endif
		my.taken = true;
		my.floor = catalog.floor;
		printf("%c  catalog_take: the floor is %d\n", NAME(n), my.floor);
	fi
}

inline own_spool_set_aside()
{
	printf("%c  own batch #%d for slot %d is below the floor: set aside\n", NAME(n), my.spool, batch[my.spool].txid);
	my.spool = 0
}

/*
 * The database is made anew from a snapshot, compactions, and slots.  What
 * epochs there were in slots that are gone cannot be seen; but the catalog, in
 * which the floor was read, has the epoch of who deleted them.
 */
#ifdef NO_EPOCH_WITH_FLOOR
#define DEPOSED_IN_CATALOG false
#else
#define DEPOSED_IN_CATALOG (catalog.epoch > my.epoch)
#endif

inline start_over()
{
	if
	:: DEPOSED_IN_CATALOG ->
		printf("%c  the catalog has epoch %d: we are deposed\n", NAME(n), catalog.epoch);
		node_stop()
	:: else ->
		printf("%c  the floor is %d: restored from a snapshot, up to slot %d\n", NAME(n), catalog.floor, head);
		my.txid = head;
		TIME_PASSES(my)
	fi
}

#ifdef NO_FLOOR_AFTER_404
#define FREED false
#else
#define FREED (!my.fresh && NEXT < catalog.floor)
#endif

/* Follow to the 404.  An absent slot may have been freed. */
inline catch_up()
{
	if
	:: slot[NEXT] != 0 && batch[slot[NEXT]].epoch >= my.epoch ->
		printf("%c  slot %d has epoch %d: we are deposed\n", NAME(n), NEXT, batch[slot[NEXT]].epoch);
		node_stop()
	:: slot[NEXT] != 0 && batch[slot[NEXT]].epoch < my.epoch && NEXT >= catalog.floor ->
		printf("%c  follow: slot %d\n", NAME(n), NEXT);
		must(replica_exact, log[NEXT] == slot[NEXT]);
		my.txid++;
		TIME_PASSES(my)
	:: slot[NEXT] == 0 && !FREED ->
		printf("%c  follow: slot %d is absent\n", NAME(n), NEXT);
		SEEN_ABSENT(my);
		my.at_end = true
	:: else -> start_over()
	fi
}

inline seal()
{
	new_batch(my.txid + 1, batch[log[my.txid]].post, sealed + 1, my.epoch, n);
	my.spool = sealed;
	printf("%c  seal: batch #%d for slot %d, epoch %d\n", NAME(n), sealed, my.txid + 1, my.epoch)
}

/* ---- slot_put ---- */

inline slot_send()
{
	batch[my.spool].sent = true;
	printf("%c  slot_put: batch #%d is sent to slot %d\n", NAME(n), my.spool, batch[my.spool].txid)
}

/* Ours is not in the log: it is set aside, and the log followed anew. */
inline diverge()
{
	printf("%c  set aside: batch #%d\n", NAME(n), my.spool);
	my.spool = 0;
	TIME_PASSES(my);
	my.at_end = false;
	if
	:: my.role == RECOVERING && HOLDS
	:: else -> my.txid = head; node_stop()
	fi
}

/*
 * Ours is in the slot.  It counts if the slot was seen absent so shortly before
 * that it cannot have been freed, or if a floor read now is not above it.
 */
#ifdef NO_FLOOR_AFTER_PUT
#define PUT_COUNTS (NEXT >= my.floor)
#else
#define PUT_COUNTS (my.fresh || NEXT >= catalog.floor)
#endif

inline confirm(next_is_absent)
{
	if
	:: PUT_COUNTS ->
		printf("%c  slot %d is confirmed, its commit acknowledged\n", NAME(n), NEXT);
		must(acknowledged, log[NEXT] == my.spool);
		my.txid++;
		my.closed = my.closed || batch[my.spool].epoch == my.epoch;
		my.spool = 0;
		b = next_is_absent;
		TIME_PASSES(my);
		if
		:: b -> SEEN_ABSENT(my)
		:: else
		fi;
		b = 0
	:: else ->
		printf("%c  the floor is %d: what is in slot %d does not count\n", NAME(n), catalog.floor, NEXT);
		diverge()
	fi
}

/*
 * Stored just now, a batch tells that nobody can have filled the slot behind it.
 * Stored by an earlier try, it tells nothing of that.
 */
#ifdef NO_ABSENT_BY_200
#define ABSENT_BY_412 (!my.fresh)
#else
#define ABSENT_BY_412 false
#endif

inline slot_reply()
{
	if
	:: slot[NEXT] == 0 ->
		printf("%c  slot_put: batch #%d stored in slot %d (200); seen absent just before: %d\n", NAME(n), my.spool, NEXT, my.fresh);
		must(no_stray, !(HOLDS && log[NEXT] != 0));
		b = my.spool;
		bucket_put_if_absent(b);
		b = 0;
		confirm(true)
	:: slot[NEXT] == my.spool ->
		printf("%c  slot_put: slot %d is taken (412), by our own batch #%d; seen absent just before: %d\n", NAME(n), NEXT, my.spool, my.fresh);
		confirm(ABSENT_BY_412)
	:: else ->
		printf("%c  slot_put: slot %d is taken (412), by batch #%d\n", NAME(n), NEXT, slot[NEXT]);
		diverge()
	fi
}

/* ---- Retention ---- */

inline retention_plan()
{
	plans++;
	my.new_floor = my.txid;
	my.new_epoch = my.epoch;
	my.if_match = catalog.version;
	printf("%c  retention: catalog.json with floor %d is sent\n", NAME(n), my.new_floor)
}

#ifdef NO_CATALOG_IF_MATCH
#define CATALOG_MATCHES true
#else
#define CATALOG_MATCHES (my.if_match == catalog.version)
#endif

/* Executed late or not; its sender may be dead. */
inline catalog_put()
{
	if
	:: CATALOG_MATCHES ->
		printf("   the bucket executes the catalog.json of %c: the floor is %d\n", NAME(n), my.new_floor);
		must(floor_rises, my.new_floor >= catalog.floor);
		catalog.version++;
		catalog.epoch = my.new_epoch;
		catalog.floor = my.new_floor
	:: else
	fi;
	my.new_floor = 0;
	my.new_epoch = 0;
	my.if_match = 0
}

#ifdef NO_FLOOR_FIRST
#define DELETABLE(k) (k < catalog.floor || k < node[0].new_floor || k < node[1].new_floor)
#else
#define DELETABLE(k) (k < catalog.floor)
#endif

/* ---- The nodes ---- */

#ifdef NO_CATALOG_FIRST
#define TAKE_WHEN (my.role == RECOVERING && my.closed && my.spool == 0 && !my.taken)
#define RECOVER_WHEN true
#define MAY_SERVE my.taken
#else
#define TAKE_WHEN (my.role == TAKING && !my.taken)
#define RECOVER_WHEN my.taken
#define MAY_SERVE true
#endif

#ifdef NO_SPOOL_ABOVE_FLOOR
#define SPOOL_BELOW_FLOOR false
#else
#define SPOOL_BELOW_FLOOR (NEXT < my.floor)
#endif

#define ACTIVE (my.role == RECOVERING || my.role == PRIMARY)

proctype Mount(byte n)
{
end:	do
	/* Taking over. */
	:: d_step { my.role == OFF && generation < EPOCHS && (n == 0 || generation > 0) -> lease_take() }
	:: d_step { TAKE_WHEN -> catalog_take() }
	:: d_step { my.role == TAKING && RECOVER_WHEN -> my.role = RECOVERING }
	:: d_step { my.role == RECOVERING && my.spool != 0 && SPOOL_BELOW_FLOOR -> own_spool_set_aside() }
	:: d_step { my.role == RECOVERING && my.spool == 0 && !my.at_end -> catch_up() }
	:: d_step { my.role == RECOVERING && my.spool == 0 && my.at_end && !my.closed && ROOM && my.txid < SLOTS -> seal() }
	:: d_step { my.role == RECOVERING && my.spool == 0 && my.closed && MAY_SERVE -> my.role = PRIMARY }

	/* A batch, or the barrier. */
	:: d_step { my.role == PRIMARY && my.spool == 0 && ROOM && my.txid < SLOTS -> seal() }
	:: d_step { ACTIVE && my.spool != 0 && !batch[my.spool].sent && !SPOOL_BELOW_FLOOR -> slot_send() }
	:: d_step { ACTIVE && my.spool != 0 && batch[my.spool].sent && !SPOOL_BELOW_FLOOR -> slot_reply() }

	/* As far as it knows it holds the lease, whose answer was a moment ago. */
	:: d_step { my.role == PRIMARY && HOLDS && plans < PLANS && my.new_floor == 0 && my.txid > catalog.floor -> retention_plan() }
	:: d_step { my.new_floor != 0 -> catalog_put() }

	:: d_step { my.role != OFF && crashes < CRASHES ->
		printf("%c  is killed and started\n", NAME(n));
		crashes++;
		node_stop() }

	/* Half of the retention has passed. */
	:: d_step { my.fresh ->
		printf("%c  time passes\n", NAME(n));
		TIME_PASSES(my) }
	od
}

/* ---- The reader ---- */

#ifdef NO_FLOOR_AFTER_GET
#define READER_FLOOR reader.floor
#else
#define READER_FLOOR catalog.floor
#endif

#ifdef NO_FLOOR_AFTER_404
#define READER_FREED false
#else
#define READER_FREED (!reader.fresh && reader.txid + 1 < READER_FLOOR)
#endif

inline reader_poll()
{
	if
	:: slot[reader.txid + 1] == 0 && !READER_FREED ->
		printf("   the reader is up to date: slot %d is absent\n", reader.txid + 1);
		must(replica_exact, log[reader.txid + 1] == 0);
		SEEN_ABSENT(reader)
	:: slot[reader.txid + 1] != 0 && (reader.fresh || reader.txid + 1 >= READER_FLOOR) ->
		printf("   the reader applies slot %d, batch #%d; seen absent just before: %d\n", reader.txid + 1, slot[reader.txid + 1], reader.fresh);
		must(replica_exact, log[reader.txid + 1] == slot[reader.txid + 1]);
		reader.txid++;
		TIME_PASSES(reader)
	:: else ->
		printf("   the reader finds the floor at %d, and starts over from a snapshot\n", catalog.floor);
		reader.txid = head;
		TIME_PASSES(reader)
	fi
}

/* ---- The bucket ---- */

#define LATE(k) :: d_step { k <= BATCHES && batch[k].sent && slot[batch[k].txid] == 0 -> \
		printf("   the bucket executes the put of batch #%d to slot %d\n", k, batch[k].txid); \
		bucket_put_if_absent(k) }

/* What was filled after a slot was seen absent is too young while that is fresh. */
#define YOUNGER(k, who) (who.fresh && k > who.head_then)
#define TOO_YOUNG(k) (YOUNGER(k, node[0]) || YOUNGER(k, node[1]) || YOUNGER(k, reader))
#define DELETE(k) :: d_step { DELETABLE(k) && slot[k] != 0 && !TOO_YOUNG(k) -> \
		printf("   the bucket deletes slot %d\n", k); \
		slot[k] = 0 }

init
{
	atomic {
		node[0].role = OFF;
		node[1].role = OFF;
		catalog.floor = 1;
		run Mount(0);
		run Mount(1)
	}
end:	do
	LATE(1) LATE(2) LATE(3) LATE(4) LATE(5) LATE(6)
	DELETE(1) DELETE(2) DELETE(3) DELETE(4)
	:: d_step { !(slot[reader.txid + 1] == 0 && reader.fresh) -> reader_poll() }
#ifdef NO_FLOOR_AFTER_GET
	:: d_step { reader.floor != catalog.floor ->
		reader.floor = catalog.floor;
		printf("   the reader reads the floor: %d\n", reader.floor) }
#endif
	:: d_step { reader.fresh ->
		printf("   time passes for the reader\n");
		TIME_PASSES(reader) }
	od
}
