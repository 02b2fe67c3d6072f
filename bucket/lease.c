#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fail.h"
#include "bucket/bucket.h"

#include "bucket/lease.h"

enum {
	TRIES = 4,
	DATE_UNIT_MS = 1000, /* a Date has whole seconds, cut off */
};

struct lease {
	struct bucket *bucket;
	char owner[LEASE_OWNER_SIZE], url[LEASE_URL_SIZE];
	int64_t ttl_ms;
	char formers[LEASE_FORMERS][LEASE_HOLDER_SIZE];
	char holder[LEASE_HOLDER_SIZE]; /* of this life */

	/* The last record that was read or confirmed. */
	struct lease_record record;
	char etag[BUCKET_ETAG_SIZE];
	bool held;	/* it is this life's */
	bool inherited; /* and came from who had closed every log */
	char before[LEASE_HOLDER_SIZE]; /* from whom */
	int64_t safe_until_ms;
	uint64_t serial; /* the last one sent */

	/* What the store's clock said in an answer to what was sent then. */
	int64_t date_ms;
	int64_t asked_ms; /* monotonic */
};

/* Shortened if need be, but not within a character: half of one is no text. */
static void copy_text(char *ret, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size) {
		n = size - 1;
		while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(ret, text, n);
	ret[n] = '\0';
}

int lease_new(const struct lease_config *config, struct lease **ret)
{
	struct lease *l = calloc(1, sizeof(*l));

	if (!l)
		return error_set(-ENOMEM, "no memory for the lease");
	l->bucket = config->bucket;
	l->ttl_ms = config->ttl_ms ? config->ttl_ms : LEASE_TTL_MS;
	copy_text(l->owner, sizeof(l->owner), config->owner);
	copy_text(l->url, sizeof(l->url), config->url ? config->url : "");
	memcpy(l->formers, config->formers, sizeof(l->formers));
	lease_holder_make(l->holder);
	*ret = l;
	return 0;
}

const char *lease_holder(const struct lease *l)
{
	return l->holder;
}

void lease_free(struct lease *l)
{
	free(l);
}

/*
 * Whatever this life sent, and is still on its way, is nobody's now.  Others
 * may have come in between, so those before it count no more than they do.
 */
static void end_life(struct lease *l)
{
	lease_holder_make(l->holder);
	memset(l->formers, 0, sizeof(l->formers));
	l->held = l->inherited = false;
	l->before[0] = '\0';
	l->safe_until_ms = 0;
}

/* ------------------------------------------------------ asking the store */

/* Every answer tells the time; one without it is none to go by. */
static int note_date(struct lease *l, int64_t asked_ms,
		     const struct bucket_info *info)
{
	if (info->date_ms == 0)
		return error_set(-ENODATA,
				 "the replies of %s have no Date, by which a "
				 "lease is judged; use another store, or another "
				 "driver than libs3", l->bucket->url);
	l->date_ms = info->date_ms;
	l->asked_ms = asked_ms;
	return 0;
}

/* The store's clock now, but for the time that an answer takes. */
static int64_t store_ms(const struct lease *l)
{
	return l->date_ms + clock_monotonic_ms() - l->asked_ms;
}

static int get(struct lease *l)
{
	int64_t asked_ms = clock_monotonic_ms();
	struct bucket_info info;
	int rc = lease_record_get(l->bucket, &l->record, &info);

	if (rc < 0)
		return rc;
	(void)snprintf(l->etag, sizeof(l->etag), "%s", info.etag);
	return note_date(l, asked_ms, &info);
}

/* No two writes have the same bytes, also of those that came to nothing. */
static uint64_t next_serial(struct lease *l)
{
	if (l->serial < l->record.serial)
		l->serial = l->record.serial;
	return ++l->serial;
}

/*
 * A record for the first holder to replace, since a 404 tells no time.  Its bytes
 * are its own as well, or a late claim could take it for one of long ago.
 */
static int make(struct lease *l)
{
	struct lease_record nobody = {
		.serial = next_serial(l),
		.released = true,
	};
	struct bucket_info info;

	memcpy(nobody.holder, l->holder, sizeof(nobody.holder));
	return lease_record_put(l->bucket, &nobody, NULL, &info);
}

/* For what failed without saying that it always will. */
static int too_many(const struct lease *l, const char *what)
{
	char last[ERROR_MESSAGE_SIZE];

	(void)snprintf(last, sizeof(last), "%s", error_message());
	return error_set(-EAGAIN, "%s the lease of %s: gave up after %d tries, "
			 "of which the last: %s", what, l->bucket->url, TRIES,
			 last);
}

/* Can it be that the put was done, or that another will be? */
static bool in_doubt(int rc)
{
	return bucket_transient(rc) || rc == -ERR_PRECOND;
}

static int get_or_make(struct lease *l)
{
	int rc = get(l);

	for (int i = 0; rc == -ENOENT && i < TRIES; i++) {
		rc = make(l);
		if (rc == 0 || in_doubt(rc))
			rc = get(l);
	}
	return rc == -ENOENT ? too_many(l, "taking") : rc;
}

static bool is_mine(const struct lease *l)
{
	return strcmp(l->record.holder, l->holder) == 0 && !l->record.released;
}

static bool is_free(const struct lease *l)
{
	return l->record.released || l->date_ms >= l->record.expires_ms;
}

static bool is_former(const struct lease *l)
{
	for (int i = 0; i < LEASE_FORMERS; i++)
		if (l->formers[i][0] &&
		    strcmp(l->record.holder, l->formers[i]) == 0)
			return true;
	return false;
}

/*
 * The record that was read last becomes this one.  1: it did; 0: another came
 * first, which is read by now, or it is not known whether anything did.
 */
static int replace(struct lease *l, const struct lease_record *next)
{
	int64_t asked_ms = clock_monotonic_ms();
	struct bucket_info info;
	int rc = lease_record_put(l->bucket, next, l->etag, &info);

	FAILPOINT("lease-put");
	if (rc == 0 && info.etag[0]) {
		l->record = *next;
		(void)snprintf(l->etag, sizeof(l->etag), "%s", info.etag);
		if (info.date_ms)
			(void)note_date(l, asked_ms, &info);
		return 1;
	}
	if (rc < 0 && !in_doubt(rc))
		return rc;
	/* Did it happen, perhaps in a try whose answer was lost? */
	rc = get(l);
	if (rc < 0)
		return rc;
	return strcmp(l->record.holder, next->holder) == 0 &&
	       l->record.serial == next->serial;
}

/* ---------------------------------------------------------------- holding */

/*
 * Nobody else takes it before the store's clock has reached expires_ms.  That
 * clock was less than a unit ahead of its last Date when that was sent, after
 * we had asked.
 */
static int64_t safe_until(const struct lease *l)
{
	return l->asked_ms + (l->record.expires_ms - l->date_ms) -
	       DATE_UNIT_MS;
}

static struct lease_record extended(struct lease *l)
{
	struct lease_record next = l->record;

	next.serial = next_serial(l);
	next.expires_ms = store_ms(l) + l->ttl_ms;
	return next;
}

static struct lease_record claim(struct lease *l, uint64_t known_epoch)
{
	uint64_t last = l->record.generation > known_epoch
				? l->record.generation : known_epoch;
	struct lease_record next = {
		.generation = last + 1,
		.serial = next_serial(l),
		.acquired_ms = store_ms(l),
		.expires_ms = store_ms(l) + l->ttl_ms,
	};

	memcpy(next.holder, l->holder, sizeof(next.holder));
	memcpy(next.owner, l->owner, sizeof(next.owner));
	memcpy(next.url, l->url, sizeof(next.url));
	return next;
}

int lease_may_take(const struct lease *l)
{
	char until[CLOCK_TEXT_SIZE];

	if (is_mine(l) || is_former(l) || is_free(l))
		return 0;
	clock_format(l->record.expires_ms, until);
	return error_set(-EBUSY, "%s is written by '%s' (epoch %" PRIu64
			 "), whose lease lasts until %s",
			 l->bucket->url, l->record.owner, l->record.generation,
			 until);
}

static void hold(struct lease *l, bool inherited)
{
	l->held = true;
	l->inherited = inherited;
	l->safe_until_ms = safe_until(l);
}

/* One try, by the record that was read.  1: taken; 0: look again. */
static int try_to_take(struct lease *l, uint64_t known_epoch)
{
	bool clean = l->record.released && l->record.clean;
	char before[LEASE_HOLDER_SIZE];
	struct lease_record next;
	int rc;

	/*
	 * By an earlier try, of which it was not known that it happened.  What
	 * has been learned of the logs since then may be further than its epoch.
	 */
	if (is_mine(l) && l->record.generation > known_epoch) {
		hold(l, false);
		return 1;
	}
	rc = lease_may_take(l);
	if (rc < 0)
		return rc;
	memcpy(before, l->record.holder, sizeof(before));
	next = claim(l, known_epoch);
	if (next.generation > UINT32_MAX)
		return error_set(-EOVERFLOW, "%s has had all epochs that there "
				 "are", l->bucket->url);
	rc = replace(l, &next);
	if (rc > 0) {
		memcpy(l->before, before, sizeof(before));
		hold(l, clean);
	}
	return rc;
}

int lease_take(struct lease *l, uint64_t known_epoch)
{
	int rc;

	if (l->held)
		return lease_renew(l);
	rc = get_or_make(l);
	for (int i = 0; rc == 0 && i < TRIES; i++)
		rc = try_to_take(l, known_epoch);
	if (rc == 0)
		rc = too_many(l, "taking");
	return rc < 0 ? rc : 0;
}

static int lost(struct lease *l)
{
	end_life(l);
	return error_set(-ERR_FENCED, "the lease of %s was lost to '%s' (epoch "
			 "%" PRIu64 "): this one did not renew it in time",
			 l->bucket->url, l->record.owner,
			 l->record.generation);
}

/* Somebody removed it: who has not held it yet can take it by now. */
static int gone(struct lease *l)
{
	end_life(l);
	l->record = (struct lease_record){ .released = true };
	return error_set(-ERR_FENCED, "the lease of %s was lost: its " LEASE_KEY
			 " is gone", l->bucket->url);
}

/* It was reckoned from an answer of before this machine stood still. */
static bool is_short(const struct lease *l)
{
	return l->record.expires_ms - l->date_ms < l->ttl_ms / 2;
}

int lease_renew(struct lease *l)
{
	int rc = 0;

	if (!l->held)
		return error_set(-ERR_FENCED, "the lease of %s is not held",
				 l->bucket->url);
	for (int i = 0; rc == 0 && i < TRIES; i++) {
		struct lease_record next = extended(l);

		rc = replace(l, &next);
		if (rc == 0 && !is_mine(l))
			return lost(l);
		if (rc == -ENOENT)
			return gone(l);
		if (rc > 0 && is_short(l))
			rc = 0;
	}
	if (rc == 0)
		rc = too_many(l, "renewing");
	if (rc < 0)
		return rc;
	l->safe_until_ms = safe_until(l);
	return 0;
}

/* ------------------------------------------------------------ giving it up */

int lease_release(struct lease *l, bool clean)
{
	int rc = 0;

	if (!l->held)
		return 0;
	for (int i = 0; rc == 0 && i < TRIES && is_mine(l); i++) {
		struct lease_record next = extended(l);

		next.released = true;
		next.clean = clean;
		next.expires_ms = store_ms(l);
		rc = replace(l, &next);
	}
	if (rc == 0 && is_mine(l))
		rc = too_many(l, "releasing");
	end_life(l);
	return rc < 0 && rc != -ENOENT ? rc : 0;
}

/* ------------------------------------------------------------- looking on */

int lease_look(struct lease *l)
{
	int rc;

	if (l->held)
		return lease_renew(l);
	rc = get(l);
	if (rc != -ENOENT)
		return rc;
	l->record = (struct lease_record){ .released = true };
	l->etag[0] = '\0';
	return 0;
}

void lease_state(const struct lease *l, struct lease_state *ret)
{
	*ret = (struct lease_state){
		.held = l->held,
		.free = !l->held && is_free(l),
		.epoch = l->record.generation,
		.acquired_ms = l->record.acquired_ms,
		.expires_ms = l->record.expires_ms,
		.date_ms = l->date_ms,
		.clean = l->inherited,
		.safe_until_ms = l->safe_until_ms,
	};
	memcpy(ret->before, l->before, sizeof(ret->before));
	memcpy(ret->holder, l->record.holder, sizeof(ret->holder));
	memcpy(ret->owner, l->record.owner, sizeof(ret->owner));
	memcpy(ret->url, l->record.url, sizeof(ret->url));
}
