#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "bucket/bucket.h"
#include "capture/capture.h"
#include "cli/node_confirm.h"
#include "cli/report.h"
#include "cli/tenure.h"
#include "fuse/control.h"
#include "ltx/header.h"
#include "ltx/name.h"
#include "ltx/spool.h"
#include "uploader/uploader.h"

#include "cli/node.h"

/*
 * Sync
 * ----
 */

enum {
	/*
	 * How long sync waits for a transaction without a journal to end.  A
	 * comparison comes to its end, so it is waited for.
	 */
	SETTLE_MS = 10000,
	SETTLE_STEP_MS = 20,
	/* How often a waiting sync looks whether the mount is being stopped. */
	WAIT_STEP_MS = 500,
	/*
	 * A client that gave up is not seen here, so while the bucket is away
	 * syncs may gather; they must not use up what status needs, too.
	 */
	SYNCS_MAX = 32,
};

static int check_stopping(struct node *n)
{
	if (!atomic_load(&n->stopping))
		return 0;
	return error_set(-ESHUTDOWN, "the mount is being stopped; what is "
				     "committed will be uploaded, now or by "
				     "the next mount");
}

/* Until there is room in the spool nothing can be sealed, which is no failure. */
static int settle_with_room(struct node *n, const char *path,
			    struct capture_point *ret)
{
	int rc;

	while ((rc = capture_sync(n->capture, path, ret)) == -EDQUOT) {
		if (check_stopping(n) < 0)
			return -ESHUTDOWN;
		clock_sleep_ms(WAIT_STEP_MS);
	}
	return rc;
}

static int settle(struct node *n, const char *path, struct capture_point *ret)
{
	int64_t until = clock_monotonic_ms() + SETTLE_MS;
	int rc;

	for (;;) {
		rc = settle_with_room(n, path, ret);
		if (rc == -EINPROGRESS)
			until = clock_monotonic_ms() + SETTLE_MS;
		else if (rc != -EBUSY || clock_monotonic_ms() >= until)
			break;
		else
			clock_sleep_ms(SETTLE_STEP_MS);
		if (check_stopping(n) < 0)
			return -ESHUTDOWN;
	}
	if (rc == -ENOENT)
		return error_set(rc, "it is not a database of the mount");
	return rc < 0 ? rc : 0;
}

/* ret_txid: the number under which it is in the bucket. */
static int wait_confirmed(struct node *n, const char *path,
			  const struct capture_point *point,
			  uint64_t *ret_txid)
{
	int rc;

	uploader_urge(n->uploader, path);
	do {
		rc = check_stopping(n);
		if (rc == 0)
			rc = uploader_wait(n->uploader, path, point->txid,
					   point->time_ms, WAIT_STEP_MS,
					   ret_txid);
	} while (rc == -ETIMEDOUT);
	return rc;
}

static int sync_path(struct node *n, const char *path, struct buf *ret)
{
	char text[LTX_TXID_TEXT_SIZE];
	const struct node_db *db;
	const char *refused;
	struct capture_point point;
	uint64_t txid;
	int rc;

	if (node_standby_is(n))
		return error_set(-EROFS, "this mount is a standby: another node "
					 "writes its databases, and 'status' "
					 "tells which");
	rc = settle(n, path, &point);
	if (rc < 0)
		return rc;
	db = node_find(n, path);
	refused = db ? atomic_load(&db->refused) : NULL;
	if (refused)
		return error_set(-EIO, "it is not uploaded: %s", refused);
	rc = wait_confirmed(n, path, &point, &txid);
	if (rc < 0)
		return rc;
	ltx_txid_format(txid, text);
	return buf_append(ret, text, strlen(text));
}

static int control_sync(struct node *n, const char *path, struct buf *ret)
{
	int rc;

	if (atomic_fetch_add(&n->syncs, 1) < SYNCS_MAX)
		rc = sync_path(n, path, ret);
	else
		rc = error_set(-EAGAIN,
			       "%d syncs are waiting for the bucket; "
			       "try again later",
			       SYNCS_MAX);
	atomic_fetch_sub(&n->syncs, 1);
	return rc;
}

/*
 * Status
 * ------
 */

struct report {
	struct node *node;
	const char *path; /* that was asked for; "" for all */
	json_t *databases;
};

/* Is path the one asked for, or below the directory asked for? */
static bool is_asked(const char *asked, const char *path)
{
	size_t n = strlen(asked);

	return n == 0 || (strncmp(asked, path, n) == 0 &&
			  (path[n] == '\0' || path[n] == '/'));
}

/* The time in the header of the oldest batch not in the bucket; 0: none. */
static int64_t oldest_ms(struct spool *spool)
{
	uint8_t bytes[LTX_HEADER_SIZE];
	struct ltx_header header;
	uint64_t first, last;
	AUTO(fd) int fd = -1;

	/* The uploader may be faster: a batch that is gone is confirmed. */
	if (spool_range(spool, &first, &last) < 0 || first == 0 ||
	    spool_open_batch(spool, first, &fd) < 0)
		return 0;
	if (pread(fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes) ||
	    ltx_header_decode(bytes, &header) < 0)
		return 0;
	return header.timestamp_ms;
}

static double lag_seconds(struct node *n, const struct node_db *db)
{
	int64_t oldest = db ? oldest_ms(db->spool) : 0;
	int64_t lag = node_now_ms(n) - oldest;

	return oldest && lag > 0 ? (double)lag / 1000 : 0;
}

/* Null: no commit waits for the bucket. */
static json_t *json_of_commit_waits(struct node *n, const struct node_db *db)
{
	int64_t ms = db ? node_commit_waits_ms(n, db) : 0;

	return ms > 0 ? json_real((double)ms / 1000) : json_null();
}

/* One word; the worst that is true. */
static const char *state_of(const struct capture_status *capture,
			    const struct uploader_status *uploader,
			    const char *refused)
{
	if (capture->error[0])
		return "failed";
	if (refused)
		return "stopped";
	if (uploader->state == UPLOADER_IDLE && capture->dropped)
		return "dropped";
	if (capture->comparing && (uploader->state == UPLOADER_IDLE ||
				   uploader->state == UPLOADER_BUSY))
		return "comparing";
	if (uploader->state == UPLOADER_IDLE && capture->resync)
		return "resync";
	if (uploader->state == UPLOADER_IDLE && capture->pending)
		return "busy";
	return uploader_state_name(uploader->state);
}

static const char *error_of(const struct capture_status *capture,
			    const struct uploader_status *uploader,
			    const char *refused)
{
	if (capture->error[0])
		return capture->error;
	return refused ? refused : uploader->error;
}

/* What keeps a database from being opened says more than anything else. */
static void look_at_gate(struct node *n, const char *path, const char **state,
			 const char **error, char why[GATE_WHY_SIZE])
{
	enum gate_state gate = gate_look(&n->gate, path, why);

	if (gate == GATE_CLOSED)
		*state = "closed";
	else if (gate == GATE_PENDING)
		*state = "pending";
	if (why[0])
		*error = why;
}

static void add_state(struct node *n, json_t **o,
		      const struct capture_status *capture,
		      const struct uploader_status *uploader,
		      const char *refused)
{
	const char *state = state_of(capture, uploader, refused);
	const char *error = error_of(capture, uploader, refused);
	char why[GATE_WHY_SIZE];

	look_at_gate(n, capture->path, &state, &error, why);
	report_field(o, "path", report_json_text(capture->path));
	report_field(o, "state", json_string(state));
	report_field(o, "error", report_json_text(*error ? error : NULL));
	report_field(o, "txid", report_json_txid(capture->txid));
	report_field(o, "confirmed", report_json_txid(uploader->confirmed));
	report_field(o, "confirmed_at",
		     report_json_time(uploader->confirmed_at_ms));
}

static json_t *json_of(struct node *n, const struct capture_status *capture)
{
	struct node_db *db = node_find(n, capture->path);
	const char *refused = db ? atomic_load(&db->refused) : NULL;
	struct uploader_status uploader = {0};
	json_t *o = json_object();

	/* Not added: refused says why, or it is being added right now. */
	(void)uploader_status(n->uploader, capture->path, &uploader);
	add_state(n, &o, capture, &uploader, refused);
	report_field(&o, "page_size", json_integer(capture->page_size));
	report_field(&o, "pages", json_integer(capture->commit));
	report_field(&o, "compared", capture->comparing ?
					     json_integer(capture->compared) :
					     json_null());
	report_field(&o, "waits", report_json_text(
					  *capture->waits ? capture->waits :
							    NULL));
	report_field(&o, "wal", json_boolean(capture->wal));
	report_field(&o, "pending", json_boolean(capture->pending));
	report_field(&o, "spool_batches",
		     json_integer((json_int_t)uploader.spool_batches));
	report_field(&o, "spool_bytes",
		     json_integer((json_int_t)uploader.spool_bytes));
	report_field(&o, "lag_seconds", json_real(lag_seconds(n, db)));
	report_field(&o, "durability",
		     json_string(node_durable(n, capture->path) ? "bucket" :
								  "local"));
	report_field(&o, "commit_waits_seconds", json_of_commit_waits(n, db));
	return o;
}

/* What was never uploaded and is gone is nobody's concern any more. */
static bool is_forgotten(struct node *n, const struct capture_status *status)
{
	const struct node_db *db = node_find(n, status->path);

	return status->dropped && db && atomic_load(&db->refused);
}

static const char *path_at(const struct report *r, size_t i)
{
	const json_t *o = json_array_get(r->databases, i);
	const char *path = json_string_value(json_object_get(o, "path"));

	return path ? path : "";
}

/* By name; most come in order, but for those that are unread or held back. */
static size_t place_of(const struct report *r, const char *path)
{
	size_t low = 0, high = json_array_size(r->databases);

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(path_at(r, middle), path) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* A capture_status_fn; arg is the report. */
static int add_database(const struct capture_status *status, void *arg)
{
	struct report *r = arg;

	if (!is_asked(r->path, status->path) || is_forgotten(r->node, status))
		return 0;
	if (json_array_insert_new(r->databases, place_of(r, status->path),
				  json_of(r->node, status)) < 0)
		return error_set(-ENOMEM, "out of memory for the status");
	return 0;
}

static bool is_listed(const struct report *r, const char *path)
{
	size_t place = place_of(r, path);

	return place > 0 && strcmp(path_at(r, place - 1), path) == 0;
}

/* One that is held back before capture knows of it; arg is the report. */
static int add_held(const char *path, void *arg)
{
	struct report *r = arg;
	struct capture_status status = {0};

	if (is_listed(r, path))
		return 0;
	(void)snprintf(status.path, sizeof(status.path), "%s", path);
	return add_database(&status, r);
}

/* What capture_replace() kept; arg is an array. */
static int add_aside(const char *name, const char *path, void *arg)
{
	json_t *o = json_object();

	report_field(&o, "path", report_json_text(path));
	report_field(&o, "directory", report_json_text(name));
	return json_array_append_new(arg, o) < 0 ? -ENOMEM : 0;
}

static json_t *json_aside(struct node *n)
{
	json_t *array = json_array();

	if (array && capture_each_aside(n->capture, add_aside, array) < 0) {
		json_decref(array);
		return NULL;
	}
	return array;
}

static int append(const char *data, size_t size, void *arg)
{
	return buf_append(arg, data, size) < 0 ? -1 : 0;
}

static json_t *json_of_spool(struct node *n)
{
	struct capture_spool spool;
	json_t *o = json_object();

	capture_spool_status(n->capture, &spool);
	report_field(&o, "bytes", json_integer((json_int_t)spool.used));
	report_field(&o, "max_bytes",
		     spool.max ? json_integer((json_int_t)spool.max) :
				 json_null());
	report_field(&o, "full", json_boolean(spool.full));
	return o;
}

/* Null: the store cannot keep one. */
static json_t *json_of_lease(struct node *n)
{
	struct tenure_status s;
	json_t *o = json_object();

	if (!n->tenure) {
		json_decref(o);
		return json_null();
	}
	tenure_status(n->tenure, &s);
	report_field(&o, "state", json_string(tenure_state_name(s.state)));
	report_field(&o, "owner", report_json_text(s.lease.owner));
	report_field(&o, "url", report_json_text(*s.lease.url ? s.lease.url :
								 NULL));
	report_field(&o, "epoch", json_integer((json_int_t)s.lease.epoch));
	report_field(&o, "since", report_json_time(s.lease.acquired_ms));
	report_field(&o, "until", report_json_time(s.lease.expires_ms));
	report_field(&o, "error", report_json_text(*s.error ? s.error : NULL));
	return o;
}

static int print_status(const struct report *r, struct buf *ret)
{
	struct node *n = r->node;
	json_t *d = report_document();
	char error[512];
	int rc;

	uploader_catalog_status(n->uploader, error, sizeof(error));
	report_field(&d, "mount", report_json_text(n->config.mountpoint));
	report_field(&d, "directory", report_json_text(n->config.directory));
	report_field(&d, "bucket", report_json_text(n->bucket->url));
	report_field(&d, "catalog_error",
		     report_json_text(*error ? error : NULL));
	report_field(&d, "role",
		     json_string(node_role_name(atomic_load(&n->role))));
	report_field(&d, "lease", json_of_lease(n));
	report_field(&d, "spool", json_of_spool(n));
	report_field(&d, "databases", json_incref(r->databases));
	report_field(&d, "aside", json_aside(n));
	if (!d)
		return error_set(-ENOMEM, "out of memory for the status");
	rc = json_dump_callback(d, append, ret,
				JSON_COMPACT | REPORT_JSON_REALS);
	json_decref(d);
	return rc < 0 ? error_set(-EFBIG, "the status is too long") : 0;
}

static int control_status(struct node *n, const char *path, struct buf *ret)
{
	struct report r = {
		.node = n,
		.path = path,
		.databases = json_array(),
	};
	int rc;

	if (!r.databases)
		return error_set(-ENOMEM, "out of memory for the status");
	rc = capture_each(n->capture, add_database, &r);
	if (rc == 0)
		rc = gate_each(&n->gate, add_held, &r);
	if (rc == 0)
		rc = print_status(&r, ret);
	json_decref(r.databases);
	return rc;
}

int node_control(void *arg, unsigned command, const char *path,
		 struct buf *ret_reply)
{
	switch (command) {
	case (unsigned)CONTROL_SYNC:
		return control_sync(arg, path, ret_reply);
	case (unsigned)CONTROL_STATUS:
		return control_status(arg, path, ret_reply);
	default:
		return error_set(-ENOTTY, "no such request");
	}
}
