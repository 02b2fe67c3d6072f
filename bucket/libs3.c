#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/stream.h"
#include "bucket/bucket.h"
#include "bucket/digest.h"
#include "bucket/libs3_plugin.h"
#include "bucket/s3_list.h"
#include "bucket/s3_request.h"
#include "bucket/s3_xml.h"
#include "bucket/url.h"

#include "bucket/libs3.h"

#define FILE_NAME "litebucket_libs3.so"

struct libs3 {
	struct bucket bucket;
	const struct libs3_plugin *plugin;
	struct s3_store *store;	    /* the texts of target are its */
	struct libs3_target target;
};

static int failed(const struct bucket *b, const char *verb, const char *key,
		  int rc)
{
	return error_wrap(rc, "%s '%s' in %s", verb, key, b->url);
}

/* The plugin's errno, with its text where it is the plugin's failure. */
static int check(int rc, const struct libs3_reply *reply)
{
	if (rc == -EACCES)
		return error_set(rc, "the store refuses access (%s); check "
				 "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, the "
				 "clock, and whether the store takes this "
				 "library's signatures", reply->message);
	if (rc < 0 && reply->message[0])
		return error_set(rc, "%s", reply->message);
	return rc;
}

/* The prefix of the bucket's URL and a key. */
static int full_key(const struct libs3 *l, const char *key,
		    char ret[2 * BUCKET_KEY_MAX])
{
	int n = snprintf(ret, 2 * BUCKET_KEY_MAX, "%s%s", l->store->prefix,
			 key);

	if (n >= BUCKET_KEY_MAX)
		return error_set(-EINVAL, "with the prefix of the URL, the key "
				 "is too long");
	return 0;
}

static int head_full(struct libs3 *l, const char *full,
		     struct bucket_info *ret)
{
	struct libs3_reply reply = { 0 };
	int rc = check(l->plugin->head(&l->target, full, &reply), &reply);

	if (rc == 0)
		*ret = reply.info;
	return rc;
}

/* Hands on to the caller's sink, once the reply was told. */
struct telling_sink {
	struct sink sink;
	struct sink *inner;
	const struct libs3_reply *reply;
	struct bucket_info *info;
};

static int telling_write(struct sink *sink, const void *data, size_t size)
{
	struct telling_sink *s = (struct telling_sink *)sink;

	*s->info = s->reply->info;
	return sink_write(s->inner, data, size);
}

static int get_whole(struct libs3 *l, const char *full, const char *if_match,
		     struct sink *sink, struct bucket_info *ret)
{
	struct libs3_reply reply = { 0 };
	struct telling_sink telling = {
		.sink.write = telling_write,
		.inner = sink,
		.reply = &reply,
		.info = ret,
	};
	int rc = l->plugin->get(&l->target, full, 0, 0, if_match,
				&telling.sink, &reply);

	rc = check(rc, &reply);
	if (rc == 0)
		*ret = reply.info;
	return rc;
}

/*
 * libs3 does not tell the size of the whole of which it reads a range.  So
 * the object is looked up first, and the range bound to what was found.
 */
static int get_range(struct libs3 *l, const char *full, uint64_t offset,
		     uint64_t length, const char *if_match, struct sink *sink,
		     struct bucket_info *ret)
{
	struct libs3_reply reply = { 0 };
	int rc = head_full(l, full, ret);

	if (rc < 0)
		return rc;
	if (if_match && strcmp(if_match, ret->etag) != 0)
		return error_set(-ERR_PRECOND, "there is another object");
	if (offset >= ret->size)
		return error_set(-ERANGE, "the range is beyond the object's "
				 "end");
	if (length > ret->size - offset)
		length = ret->size - offset;
	rc = l->plugin->get(&l->target, full, offset, length, ret->etag, sink,
			    &reply);
	rc = check(rc, &reply);
	if (rc == -ERR_PRECOND && !if_match)
		return error_set(-EAGAIN, "the object was replaced meanwhile");
	return rc;
}

static int libs3_get(struct bucket *b, const char *key, uint64_t offset,
		     uint64_t length, const char *if_match, struct sink *sink,
		     struct bucket_info *ret)
{
	struct libs3 *l = (struct libs3 *)b;
	char full[2 * BUCKET_KEY_MAX];
	int rc = full_key(l, key, full);

	if (rc == 0 && offset == 0 && length == BUCKET_TO_END)
		rc = get_whole(l, full, if_match, sink, ret);
	else if (rc == 0)
		rc = get_range(l, full, offset, length, if_match, sink, ret);
	return rc < 0 ? failed(b, "reading", key, rc) : 0;
}

static int libs3_head(struct bucket *b, const char *key,
		      struct bucket_info *ret)
{
	struct libs3 *l = (struct libs3 *)b;
	char full[2 * BUCKET_KEY_MAX];
	int rc = full_key(l, key, full);

	if (rc == 0)
		rc = head_full(l, full, ret);
	return rc < 0 ? failed(b, "looking up", key, rc) : 0;
}

static int send_put(struct libs3 *l, const char *full,
		    const struct bucket_put *put, const char *md5,
		    struct libs3_reply *ret)
{
	struct mem_source memory;
	struct fd_source file;
	struct source *source = &memory.source;

	mem_source_init(&memory, put->data, put->size);
	if (!put->data) {
		fd_source_init(&file, put->fd, 0, put->size);
		source = &file.source;
	}
	return check(l->plugin->put(&l->target, full, source, put->size, md5,
				    put->meta, put->n_meta, ret),
		     ret);
}

static int libs3_put(struct bucket *b, const struct bucket_put *put,
		     struct bucket_info *ret)
{
	struct libs3 *l = (struct libs3 *)b;
	struct libs3_reply reply = { 0 };
	char full[2 * BUCKET_KEY_MAX];
	struct digest digest;
	int rc = full_key(l, put->key, full);

	if (rc == 0 && (put->if_absent || put->if_match))
		rc = error_set(-EOPNOTSUPP, "%s cannot write on condition; use "
			       "a store that speaks Signature Version 4, "
			       "without driver=libs3", l->plugin->name);
	if (rc == 0)
		rc = digest_body(put->data, put->fd, put->size, &digest);
	if (rc == 0)
		rc = send_put(l, full, put, digest.md5, &reply);
	if (rc == 0 && !l->plugin->put_etag)
		rc = head_full(l, full, &reply.info);
	if (rc < 0)
		return failed(b, "writing", put->key, rc);
	*ret = reply.info;
	ret->size = put->size;
	return 0;
}

static int add_entry(void *arg, const struct bucket_object *object)
{
	struct s3_entry *entry = s3_listing_add(arg);

	if (!entry || !(entry->key = strdup(object->key)))
		return error_set(-ENOMEM, "out of memory");
	entry->size = object->size;
	entry->modified_ms = object->modified_ms;
	return 0;
}

/* A page goes on after the last key of the one before: that is its token. */
static int fetch_page(void *arg, const char *prefix, const char *after,
		      const char *token, size_t max, struct s3_listing *ret)
{
	struct libs3 *l = arg;
	struct libs3_reply reply = { 0 };
	int rc = l->plugin->list(&l->target, prefix, token ? token : after,
				 (int)max, add_entry, ret, &ret->truncated,
				 &reply);

	rc = check(rc, &reply);
	if (rc < 0 || !ret->truncated || !ret->n)
		return rc;
	ret->token = strdup(ret->entries[ret->n - 1].key);
	return ret->token ? 0 : error_set(-ENOMEM, "out of memory");
}

static int libs3_list(struct bucket *b, const char *prefix, const char *after,
		      size_t limit, bucket_list_fn fn, void *arg)
{
	struct libs3 *l = (struct libs3 *)b;
	const struct s3_pages pages = {
		.url = b->url,
		.prefix = l->store->prefix,
		.fetch = fetch_page,
		.arg = l,
	};

	return s3_list(&pages, prefix, after, limit, fn, arg);
}

static int libs3_remove(struct bucket *b, const char *const keys[], size_t n)
{
	struct libs3 *l = (struct libs3 *)b;

	for (size_t i = 0; i < n; i++) {
		struct libs3_reply reply = { 0 };
		char full[2 * BUCKET_KEY_MAX];
		int rc = full_key(l, keys[i], full);

		if (rc == 0)
			rc = check(l->plugin->remove(&l->target, full, &reply),
				   &reply);
		if (rc < 0 && rc != -ENOENT)
			return failed(b, "removing", keys[i], rc);
	}
	return 0;
}

/* Nothing to try out: libs3 cannot send a condition. */
static int libs3_probe(struct bucket *b, unsigned *ret_caps)
{
	*ret_caps = 0;
	return 0;
}

static void libs3_free(struct bucket *b)
{
	struct libs3 *l = (struct libs3 *)b;

	s3_store_free(l->store);
	free((char *)l->bucket.url);
	free(l);
}

static const struct bucket_ops libs3_ops = {
	.name = "libs3",
	.get = libs3_get,
	.head = libs3_head,
	.put = libs3_put,
	.list = libs3_list,
	.remove = libs3_remove,
	.probe = libs3_probe,
	.free = libs3_free,
};

/* Where the shared object is: see the header. */
static int find_plugin(char ret[PATH_MAX])
{
	static const char *const places[] = { "", "../lib/litebucket/" };
	const char *given = getenv("LITEBUCKET_LIBS3");
	char self[PATH_MAX];
	ssize_t length;

	if (given && *given) {
		(void)snprintf(ret, PATH_MAX, "%s", given);
		return 0;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length < 0)
		return error_errno("reading /proc/self/exe");
	self[length] = '\0';
	(void)dirname(self);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		(void)snprintf(ret, PATH_MAX, "%s/%s" FILE_NAME, self,
			       places[i]);
		if (access(ret, R_OK) == 0)
			return 0;
	}
	return error_set(-EOPNOTSUPP, FILE_NAME " is neither beside the "
			 "program nor in ../lib/litebucket; was litebucket "
			 "built where libs3 was installed? LITEBUCKET_LIBS3 "
			 "can name it");
}

static int load(const struct libs3_plugin **ret)
{
	const struct libs3_plugin *plugin;
	char path[PATH_MAX], message[512] = "";
	void *object;
	int rc = find_plugin(path);

	if (rc < 0)
		return rc;
	object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!object)
		return error_set(-EOPNOTSUPP, "%s", dlerror());
	plugin = dlsym(object, LIBS3_PLUGIN_SYMBOL);
	if (!plugin || plugin->version != LIBS3_PLUGIN_VERSION)
		return error_set(-EOPNOTSUPP, "'%s' belongs to another version "
				 "of litebucket", path);
	rc = plugin->init(message);
	if (rc < 0)
		return error_set(rc, "%s", message);
	*ret = plugin;
	return 0;
}

/* It stays loaded: libs3 keeps connections and threads may be in it. */
static int load_once(const struct libs3_plugin **ret)
{
	static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
	static const struct libs3_plugin *loaded; /* guarded by guard */
	AUTO(unlock) pthread_mutex_t *held = lock(&guard);
	int rc = loaded ? 0 : load(&loaded);

	if (rc < 0)
		return error_wrap(rc, "loading the libs3 driver");
	*ret = loaded;
	return 0;
}

/* What the URL asks for and this libs3 would quietly not do. */
static int check_abilities(const struct libs3 *l, const struct bucket_url *url)
{
	const char *name = l->plugin->name;

	if (l->target.https && !l->plugin->verifies)
		return error_set(-EOPNOTSUPP, "%s does not verify certificates, "
				 "so that https would only look safe; use it "
				 "with http:// through a network you trust, or "
				 "without driver=libs3", name);
	if (l->target.https && url->ca_bundle)
		return error_set(-EOPNOTSUPP, "%s cannot use a CA bundle of "
				 "its own", name);
	if (l->target.session_token && !l->plugin->session_token)
		return error_set(-EOPNOTSUPP, "%s cannot send a session token; "
				 "unset AWS_SESSION_TOKEN", name);
	return 0;
}

static void set_target(struct libs3 *l)
{
	const struct s3_store *store = l->store;

	l->target = (struct libs3_target){
		.host = strstr(store->endpoint, "://") + 3,
		.bucket = store->bucket,
		.region = store->region,
		.access_key = store->credentials.access_key,
		.secret_key = store->credentials.secret_key,
		.session_token = store->credentials.session_token,
		.https = strncmp(store->endpoint, "https:", 6) == 0,
		.path_style = *store->path != '\0',
	};
}

int bucket_libs3_new(const struct bucket_url *url, struct bucket **ret)
{
	struct libs3 *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return error_set(-ENOMEM, "out of memory");
	l->bucket.ops = &libs3_ops;
	l->bucket.url = strdup(url->text);
	rc = l->bucket.url ? load_once(&l->plugin)
			   : error_set(-ENOMEM, "out of memory");
	if (rc == 0)
		rc = s3_store_new(url, &l->store);
	if (rc == 0) {
		set_target(l);
		rc = check_abilities(l, url);
	}
	if (rc < 0) {
		libs3_free(&l->bucket);
		return error_wrap(rc, "opening %s", url->text);
	}
	*ret = &l->bucket;
	return 0;
}
