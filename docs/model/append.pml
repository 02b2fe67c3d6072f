/*
 * Append, lease, take-over
 * ========================
 *
 * Two nodes, A and B, and one database.  Each is a mount that holds the lease
 * (primary) or waits for it (standby, whose database is a replica).  What a
 * node does in one step is one inline below, called as it is in the code.
 *
 *	 DOWN -> STANDBY -> TAKING -> PRIMARY
 *		    ^  ^       |         |
 *		    |  +-------+---------+	lease_renew: it is another's
 *		    |	       v         v
 *		    +-- RESET <- ASIDE <- FENCED	another's batch is in our slot
 *
 * A crash goes to DOWN from anywhere.  README.md has the properties, and the
 * rules: each can be switched off by -DNO_RULE.
 */

#ifndef COMMITS
#define COMMITS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef POWER_LOSSES
#define POWER_LOSSES 0		/* of the crashes */
#endif
#ifndef NEW_MACHINES
#define NEW_MACHINES 0		/* crashes after which the directory is empty */
#endif
#ifndef RELEASES
#define RELEASES 1
#endif
#ifndef MERGES
#define MERGES 0		/* of never-sent batches, at the spool's bound */
#endif
#ifndef LOCKS_LOST
#define LOCKS_LOST 0		/* somebody deletes lock.json */
#endif

#include "bucket.pml"

bool holder_serves; /* who holds the newest epoch and serves is not fenced
			      (unless somebody deleted lock.json) */
bool nothing_lost;  /* each commit is in the log, in a file or set aside */
bool settles;	   /* in the end one serves, the other is in step */

mtype = { DOWN, STANDBY, TAKING, PRIMARY, FENCED, ASIDE, RESET };

typedef Node {
	/* On disk. */
	byte file;		/* the database, as SQLite shows it */
	byte txid;		/* the position: the last batch sealed or applied, */
	byte captured;		/* and the database as of it */
	byte confirmed;		/* up to here the log is known; beyond is the spool */
	byte spool[SLOTS + 2];
	bool marker;		/* fenced, and not yet at the end of that */
	bool power_lost;	/* not a file: the boot id differs */
	byte life;		/* the last epoch in which it closed the log, or 0 */

	/* In memory. */
	mtype role;
	byte epoch;
	bool closed;		/* the log is closed to older epochs */
	byte barrier;		/* the barrier that was sent, or 0 */
	byte reset_to;		/* what the file is, while the position is not yet */

	/* In the network. */
	byte releasing		/* lease_release of this epoch is under way */
};
Node node[2];
#define my node[n]

typedef Lock {
	byte generation;
	byte holder;		/* node + 1, or 0 */
	bool clean		/* released, and every log closed and resolved */
};
Lock lock;

/* What is counted, and what the properties speak of. */
byte commits, made, aside, lost_with_disk;
byte crashes, power_losses, new_machines, releases, merges, locks_lost;

byte i, b, pages;	/* scratch: 0 between steps */

#define HOLDS (lock.generation == my.epoch && lock.holder == n + 1 && my.epoch != 0)
#define UNCONFIRMED (my.txid > my.confirmed)
#define FIRST my.spool[my.confirmed + 1]
#define UNSEALED (my.file != my.captured)
#define NEXT_SLOT slot[my.confirmed + 1]
#define ACTIVE (my.role == TAKING || my.role == PRIMARY)

/* ---- Which rules hold ---- */

/* Writers are frozen but in a primary whose log is closed. */
#if defined(NO_WAIT_FOR_BARRIER)
#define MAY_COMMIT (my.role == PRIMARY || my.role == TAKING)
#elif defined(NO_FREEZE)
#define MAY_COMMIT ((my.role == PRIMARY && my.closed) || my.role == FENCED || my.role == ASIDE || my.role == RESET)
#else
#define MAY_COMMIT (my.role == PRIMARY && my.closed)
#endif

/* "Clean" is earned: the log was closed in this epoch, nothing is in doubt. */
#if defined(NO_CLEAN_RESOLVED)
#define MAY_RELEASE (my.role == PRIMARY && my.closed)
#elif defined(NO_CLEAN_CLOSED)
#define MAY_RELEASE (my.role == PRIMARY && !UNCONFIRMED && !UNSEALED)
#else
#define MAY_RELEASE (my.role == PRIMARY && my.closed && !UNCONFIRMED && !UNSEALED)
#endif

#ifdef NO_OWN_SPOOL_FIRST
#define OWN_SPOOL_LATER true
#else
#define OWN_SPOOL_LATER false
#endif

#ifdef NO_READ_BACK
#define IS_OURS(batch_) false
#else
#define IS_OURS(batch_) SAME(NEXT_SLOT, batch_)
#endif

#ifdef NO_SENT_IS_SACRED
#define MAY_MERGE true
#else
#define MAY_MERGE (!batch[FIRST].sent)
#endif

/* A standby sets aside what it has of its own, once its slot is another's. */
#ifdef NO_TAIL_SET_ASIDE
#define TAIL_STAYS true
#else
#define TAIL_STAYS false
#endif

/* ---- Capture ---- */

inline commit()
{
	printf("%c  an application commits {%d}\n", NAME(n), 1 << commits);
	my.file = my.file | (1 << commits);
	made = made | (1 << commits);
	commits++
}

inline seal()
{
	new_batch(my.txid + 1, my.captured, my.file, my.epoch, n);
	my.txid++;
	my.spool[my.txid] = sealed;
	my.captured = my.file;
	printf("%c  seal: batch #%d for slot %d, epoch %d, {%d} -> {%d}\n", NAME(n), sealed, my.txid, my.epoch, batch[sealed].pre, batch[sealed].post)
}

/* At the spool's bound: batches go, and the position with them (D19). */
inline merge()
{
	printf("%c  the spool is full: its batches are merged into one to be sealed\n", NAME(n));
	merges++;
#ifndef NO_PAGES_GO_BACK
	my.captured = batch[FIRST].pre;
#endif
	my.txid = my.confirmed;
	spool_clear()
}

inline spool_clear()
{
	i = 0;
	do
	:: i <= SLOTS -> my.spool[i] = 0; i++
	:: else -> break
	od;
	i = 0
}

/* ---- Uploader ---- */

inline slot_send()
{
	batch[FIRST].sent = true;
	printf("%c  slot_put: batch #%d is sent to slot %d\n", NAME(n), FIRST, my.confirmed + 1);
#ifdef NO_CONFIRM_BEFORE_ACK
	acked = acked | (batch[FIRST].post & ~batch[FIRST].pre)
#endif
}

/* The first of the spool is in its slot; who waited for it is answered. */
inline confirm()
{
	printf("%c  slot %d is confirmed, its commits acknowledged\n", NAME(n), my.confirmed + 1);
	my.confirmed++;
	b = my.spool[my.confirmed];
	my.spool[my.confirmed] = 0;
	acknowledge(batch[b].post & ~batch[b].pre);
	b = 0
}

/* The reply to slot_put: 200, or 412 and what is in the slot. */
inline slot_reply()
{
	if
	:: NEXT_SLOT == 0 ->
		printf("%c  slot_put: slot %d stored (200)\n", NAME(n), my.confirmed + 1);
		b = FIRST;
		bucket_put_if_absent(b);
		b = 0;
		confirm()
	:: else ->
		printf("%c  slot_put: slot %d is taken (412), by batch #%d of epoch %d\n", NAME(n), my.confirmed + 1, NEXT_SLOT, batch[NEXT_SLOT].epoch);
		if
		:: IS_OURS(FIRST) -> confirm()
		:: else -> fence()
		fi
	fi
}

/* ---- Lease ---- */

/*
 * Was the last holder a life of this directory that had closed the log?  All
 * that one has under way lies in the spool.
 */
#ifdef NO_LIFE_CLOSED
#define FORMER_LIFE (lock.holder == n + 1)
#else
#define FORMER_LIFE (lock.holder == n + 1 && lock.generation == my.life)
#endif

/* The new epoch is above the lock's, the log's and the spool's: lock.json may be lost. */
inline lease_take()
{
	my.closed = lock.clean || FORMER_LIFE;
	node[0].releasing = 0;	/* releases of earlier epochs can do nothing now */
	node[1].releasing = 0;
	lock.generation++;
#ifndef NO_EPOCH_ABOVE_HEAD
	if
	:: lock.generation <= HEAD_EPOCH -> lock.generation = HEAD_EPOCH + 1
	:: else
	fi;
#endif
#ifndef NO_EPOCH_ABOVE_SPOOL
	if
	:: UNCONFIRMED && lock.generation <= batch[my.spool[my.txid]].epoch ->
		lock.generation = batch[my.spool[my.txid]].epoch + 1
	:: else
	fi;
#endif
	lock.holder = n + 1;
	lock.clean = false;
	my.epoch = lock.generation;
	my.role = TAKING;
	my.life = (my.closed -> my.epoch : 0);
	printf("%c  lease_take: epoch %d; found closed: %d\n", NAME(n), my.epoch, my.closed);
#ifdef NO_BARRIER
	my.closed = true;
#endif
#ifdef NO_CATCH_UP
	if
	:: my.closed && !UNCONFIRMED && !UNSEALED -> my.role = PRIMARY
	:: else
	fi;
#endif
}

/* The renewal shows that the lease is another's. */
inline lease_lost()
{
	printf("%c  lease_renew: the lease is another's; standby\n", NAME(n));
	my.role = STANDBY;
	my.closed = false;
	my.barrier = 0
}

inline lease_release()
{
	printf("%c  lease_release of epoch %d is sent\n", NAME(n), my.epoch);
	releases++;
	my.releasing = my.epoch;
#ifndef NO_RELEASE_ENDS
	my.role = STANDBY;
	my.closed = false
#endif
}

inline lease_released()
{
	printf("   the bucket executes the lease_release of %c, epoch %d\n", NAME(n), my.releasing);
	lock.clean = true;
	my.releasing = 0
}

/* ---- Take-over: own spool, own commits, follow to the 404, barrier ---- */

/* The next slot of the log is laid over the database. */
inline follow()
{
	b = slot[my.txid + 1];
	pages = batch[b].pre ^ batch[b].post;
	my.file = (my.file & ~pages) | (batch[b].post & pages);
	printf("%c  follow: slot %d, batch #%d, gives {%d}\n", NAME(n), my.txid + 1, b, my.file);
	must(replica_exact, my.file == batch[b].post);
	my.txid++;
	my.captured = batch[b].post;
	my.confirmed = my.txid;
	b = 0;
	pages = 0;
	check_nothing_lost()
}

/* While taking over, an epoch as new as ours means that we are not the holder. */
#if defined(NO_EPOCH_ON_412)
#define DEPOSED(epoch_) false
#elif defined(NO_EQUAL_EPOCH)
#define DEPOSED(epoch_) (epoch_ > my.epoch)
#else
#define DEPOSED(epoch_) (epoch_ >= my.epoch)
#endif

inline catch_up()
{
	if
	:: DEPOSED(batch[slot[my.txid + 1]].epoch) ->
		printf("%c  slot %d has epoch %d: we are deposed\n", NAME(n), my.txid + 1, batch[slot[my.txid + 1]].epoch);
		lease_lost()
	:: else -> follow()
	fi
}

inline serve()
{
	printf("%c  the log is closed: primary of epoch %d\n", NAME(n), my.epoch);
	my.closed = true;
	my.life = my.epoch;
	my.barrier = 0;
	my.role = PRIMARY
}

/* In the slot after the last that is known; sent at once. */
inline barrier_send()
{
	b = log[my.confirmed];
	new_batch(my.confirmed + 1, batch[b].post, batch[b].post, my.epoch, n);
	b = 0;
	batch[sealed].sent = true;
	my.barrier = sealed;
	printf("%c  the barrier, batch #%d of epoch %d, is sent to slot %d\n", NAME(n), sealed, my.epoch, my.confirmed + 1)
}

inline barrier_confirmed()
{
	if
	:: !UNCONFIRMED ->
		my.confirmed++;
		my.txid = my.confirmed
	:: else		/* NO_OWN_SPOOL_FIRST */
	fi;
	serve()
}

inline barrier_reply()
{
	if
	:: NEXT_SLOT == 0 ->
		printf("%c  the barrier in slot %d is stored (200)\n", NAME(n), my.confirmed + 1);
		b = my.barrier;
		bucket_put_if_absent(b);
		b = 0;
		barrier_confirmed()
	:: else ->
		printf("%c  barrier: slot %d is taken (412), by batch #%d of epoch %d\n", NAME(n), my.confirmed + 1, NEXT_SLOT, batch[NEXT_SLOT].epoch);
		if
		:: SAME(NEXT_SLOT, my.barrier) -> barrier_confirmed()
		:: else -> my.barrier = 0	/* catch_up() looks at it */
		fi
	fi
}

/* ---- Fencing: freeze, marker, set aside, reset, position, marker away ---- */

inline fence()
{
	printf("%c  fenced: writers are frozen\n", NAME(n));
	must(holder_serves, !(HOLDS && my.role == PRIMARY) || locks_lost > 0);
	my.role = FENCED;
#ifdef NO_SILENCE
	if
	:: UNCONFIRMED -> acknowledge(batch[FIRST].post & ~batch[FIRST].pre)
	:: else
	fi;
#endif
#ifndef NO_MARKER
	my.marker = true;
#endif
	my.closed = false;
	my.barrier = 0
}

inline set_aside()
{
#ifndef NO_SET_ASIDE
	aside = aside | my.file;
	if
	:: UNCONFIRMED -> aside = aside | batch[my.spool[my.txid]].post
	:: else
	fi;
	printf("%c  set aside as diverged: {%d}\n", NAME(n), aside);
#endif
	my.role = ASIDE
}

/* A kill between the two leaves a file that is the log's and a position that is not. */
inline reset_file()
{
	printf("%c  the database is reset to the log's {%d}\n", NAME(n), LOG_STATE);
	spool_clear();
	my.confirmed = my.txid;	/* nothing in the spool */
	my.file = LOG_STATE;
	my.reset_to = head;
	my.role = RESET;
	check_nothing_lost()
}

inline reset_position()
{
	printf("%c  the position is the log's; standby\n", NAME(n));
	my.txid = my.reset_to;
	my.confirmed = my.reset_to;
	my.captured = batch[log[my.reset_to]].post;
	my.reset_to = 0;
	my.marker = false;
	my.role = STANDBY
}

inline check_nothing_lost()
{
	must(nothing_lost, ((made & ~lost_with_disk) & ~(LOG_STATE | aside | node[0].file | node[1].file | node[0].captured | node[1].captured)) == 0)
}

/* ---- Crashes ---- */

inline forget_memory()
{
	my.role = DOWN;
	my.epoch = 0;
	my.closed = false;
	my.barrier = 0;
	my.reset_to = 0
}

/* What was committed last is not in the file; position and spool were synced. */
inline lose_power()
{
	power_losses++;
	my.power_lost = true;
	my.life = 0;		/* another boot */
	i = commits;
	do
	:: i > 0 && (my.file & (1 << (i - 1))) == 0 -> i--
	:: else -> break
	od;
	if
	:: i > 0 ->
		my.file = my.file & ~(1 << (i - 1));
		lost_with_disk = lost_with_disk | (1 << (i - 1))
	:: else
	fi;
	i = 0
}

inline lose_disk()
{
	new_machines++;
	lost_with_disk = lost_with_disk | my.file;
	my.file = 0;
	my.txid = 0;
	my.captured = 0;
	my.confirmed = 0;
	my.marker = false;
	my.power_lost = false;
#ifndef NO_LIFE_IN_PLACE
	my.life = 0;		/* another directory, even if it is a copy */
#endif
	spool_clear()
}

/* The marker first; a file behind its position is rolled forward. */
inline start()
{
	printf("%c  starts\n", NAME(n));
	my.role = STANDBY;
	if
	:: my.marker -> my.role = FENCED
	:: else ->
#ifndef NO_ROLL_FORWARD
		if
		:: my.power_lost -> my.file = my.file | my.captured
		:: else
		fi;
#endif
	fi;
	my.power_lost = false;
#ifdef NO_HOLDER
	if
	:: my.role == STANDBY && lock.holder == n + 1 && !lock.clean ->
		printf("%c  lock.json has our name: epoch %d goes on\n", NAME(n), lock.generation);
		my.epoch = lock.generation;
		my.closed = true;
		my.role = TAKING
	:: else
	fi;
#endif
}

/* ---- The nodes ---- */

/*
 * The lease moves at will until epoch EPOCHS, and for a while after that only
 * if nobody has it, so that what began can come to its end.  A is the first.
 */
#define HELD_BY(x) ((node[x].role == TAKING || node[x].role == PRIMARY) && node[x].epoch == lock.generation && lock.holder == x + 1)
#define SPARE 4
#define LEASE_FREE (lock.generation < EPOCHS || (lock.generation < EPOCHS + SPARE && !HELD_BY(0) && !HELD_BY(1)))
#define MAY_TAKE (LEASE_FREE && (n == 0 || lock.generation > 0 || locks_lost > 0))

#ifdef NO_WAIT_FOR_BARRIER
#define IN_STEP (!UNCONFIRMED)
#else
#define IN_STEP (!UNCONFIRMED && !UNSEALED)
#endif

proctype Mount(byte n)
{
end:	do
	/* The application, and the spool. */
	:: d_step { MAY_COMMIT && commits < COMMITS -> commit() }
	:: d_step { my.role == PRIMARY && my.closed && UNSEALED && ROOM && my.txid < SLOTS -> seal() }
	:: d_step { merges < MERGES && my.role == PRIMARY && UNCONFIRMED && MAY_MERGE -> merge() }

	/* The first of the spool; it alone (R3). */
	:: d_step { ACTIVE && UNCONFIRMED && !batch[FIRST].sent -> slot_send() }
#ifdef NO_ONE_SLOT_OPEN
	:: d_step { ACTIVE && my.txid == my.confirmed + 2 && !batch[my.spool[my.txid]].sent ->
		printf("%c  slot_put: batch #%d is sent to slot %d\n", NAME(n), my.spool[my.txid], my.txid);
		batch[my.spool[my.txid]].sent = true }
#endif
	:: d_step { ACTIVE && UNCONFIRMED && batch[FIRST].sent -> slot_reply() }

	/* Taking over. */
	:: d_step { my.role == STANDBY && MAY_TAKE -> lease_take() }
	:: d_step { my.role == TAKING && !UNCONFIRMED && UNSEALED && my.barrier == 0 && ROOM && my.txid < SLOTS -> seal() }
	:: d_step { my.role == TAKING && IN_STEP && my.barrier == 0 && NEXT_SLOT != 0 -> catch_up() }
	:: d_step { my.role == TAKING && IN_STEP && my.barrier == 0 && NEXT_SLOT == 0 && my.closed -> serve() }
	:: d_step { my.role == TAKING && (IN_STEP || OWN_SPOOL_LATER) && my.barrier == 0 && NEXT_SLOT == 0 && !my.closed && ROOM && my.confirmed < SLOTS -> barrier_send() }
	:: d_step { my.role == TAKING && my.barrier != 0 -> barrier_reply() }
#ifdef NO_CLEAN_CLOSED
	:: d_step { my.role == TAKING && IN_STEP && my.barrier == 0 && NEXT_SLOT == 0 && !my.closed ->
		printf("%c  primary; the barrier is left until the first commit\n", NAME(n));
		my.role = PRIMARY }
#endif

	/* Giving away, voluntarily or not. */
	:: d_step { ACTIVE && !HOLDS -> lease_lost() }
	:: d_step { MAY_RELEASE && my.releasing == 0 && releases < RELEASES -> lease_release() }
	:: d_step { my.releasing != 0 && lock.generation == my.releasing && lock.holder == n + 1 && !lock.clean -> lease_released() }

	/* A standby follows; what it has of its own is decided when its slot is taken. */
	:: d_step { my.role == STANDBY && !UNCONFIRMED && NEXT_SLOT != 0 && !(UNSEALED && TAIL_STAYS) ->
		if
		:: UNSEALED -> fence()
		:: else -> follow()
		fi }
	:: d_step { my.role == STANDBY && UNCONFIRMED && NEXT_SLOT != 0 && (IS_OURS(FIRST) || !TAIL_STAYS) ->
		if
		:: IS_OURS(FIRST) -> confirm()
		:: else -> fence()
		fi }

	/* Fenced. */
	:: d_step { my.role == FENCED -> set_aside() }
	:: d_step { my.role == ASIDE -> reset_file() }
	:: d_step { my.role == RESET -> reset_position() }

	/* Crashes. */
	:: d_step { my.role != DOWN && crashes < CRASHES ->
		printf("%c  is killed\n", NAME(n));
		crashes++;
		forget_memory() }
	:: d_step { my.role != DOWN && crashes < CRASHES && power_losses < POWER_LOSSES && commits > 0 ->
		printf("%c  loses power, and the file what was committed last\n", NAME(n));
		crashes++;
		forget_memory();
		lose_power() }
	:: d_step { my.role != DOWN && crashes < CRASHES && new_machines < NEW_MACHINES ->
		printf("%c  is lost, and replaced by a machine with an empty directory\n", NAME(n));
		crashes++;
		forget_memory();
		lose_disk() }
	:: d_step { my.role == DOWN -> start() }
	od
}

/* ---- The bucket ---- */

/* A put that is under way is executed; its sender does not learn of it now. */
#define LATE(k) :: d_step { k <= BATCHES && batch[k].sent && slot[batch[k].txid] == 0 -> \
		printf("   the bucket executes the put of batch #%d to slot %d\n", k, batch[k].txid); \
		bucket_put_if_absent(k) }

#define IN_STEP_WITH_LOG(x) (node[x].txid == head && node[x].confirmed == head && node[x].captured == LOG_STATE && node[x].file == LOG_STATE)
#define SETTLED(x, y) (node[x].role == PRIMARY && HELD_BY(x) && node[y].role == STANDBY && IN_STEP_WITH_LOG(x) && IN_STEP_WITH_LOG(y))
#define OUT_OF_BOUNDS (!ROOM || head >= SLOTS || lock.generation >= EPOCHS + SPARE)

init
{
	atomic {
		node[0].role = STANDBY;
		node[1].role = STANDBY;
		run Mount(0);
		run Mount(1)
	}
end:	do
	LATE(1) LATE(2) LATE(3) LATE(4) LATE(5) LATE(6) LATE(7) LATE(8)
	:: d_step { locks_lost < LOCKS_LOST && lock.generation > 0 ->
		printf("   somebody deletes lock.json\n");
		locks_lost++;
		lock.generation = 0;
		lock.holder = 0;
		lock.clean = false;
		node[0].life = 0;	/* no later record names it */
		node[1].life = 0 }
#ifdef SETTLES
	:: d_step { timeout -> must(settles, OUT_OF_BOUNDS || SETTLED(0, 1) || SETTLED(1, 0)) } break
#endif
	od
}
