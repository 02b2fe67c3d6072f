#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/io.h"
#include "fuse/control.h"

#include "fuse/ops.h"

/*
 * Whoever takes req out (under the lock) answers it: the thread that has the
 * result, the interrupt, or the end of the mount.
 */
struct control_call {
	struct mount *mount;
	fuse_req_t req; /* NULL: answered; guarded by controls.lock */
	unsigned command;
	struct control_call *next, **link; /* guarded by controls.lock */
	char path[INODE_PATH_SIZE];
};

struct control_text {
	uint64_t token;
	struct buf text;
	struct control_text *next;
};

int controls_init(struct controls *c)
{
	int rc = cond_init(&c->changed);

	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&c->lock, NULL);
	c->calls = NULL;
	c->calls_count = 0;
	c->answering = 0;
	c->texts = NULL;
	return 0;
}

static void text_free(struct control_text *text)
{
	buf_cleanup(&text->text);
	free(text);
}

static void reply_message(fuse_req_t req, const struct control_message *message)
{
	(void)fuse_reply_ioctl(req, 0, message, sizeof(*message));
}

static void reply_failure(fuse_req_t req, int rc, const char *why)
{
	struct control_message message = {
		.version = CONTROL_VERSION,
		.result = rc,
	};

	(void)snprintf(message.text, sizeof(message.text), "%s", why);
	message.total = message.size = (uint32_t)strlen(message.text);
	reply_message(req, &message);
}

static void fill_piece(struct control_message *message, const struct buf *text,
		       uint64_t token, uint64_t offset)
{
	size_t size = text->size - (size_t)offset;

	if (size > sizeof(message->text))
		size = sizeof(message->text);
	memset(message, 0, sizeof(*message));
	message->version = CONTROL_VERSION;
	message->token = token;
	message->offset = offset;
	message->total = (uint32_t)text->size;
	message->size = (uint32_t)size;
	if (size)
		memcpy(message->text, text->data + offset, size);
}

/* The right to answer, or NULL; followed by answered(). */
static fuse_req_t claim(struct controls *c, struct control_call *call)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	fuse_req_t req = TAKE(call->req);

	c->answering += req != NULL;
	return req;
}

static void answered(struct controls *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	c->answering--;
	(void)pthread_cond_broadcast(&c->changed);
}

/* The request of some call that is not answered yet, or NULL. */
static fuse_req_t claim_any(struct controls *c)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	for (struct control_call *call = c->calls; call; call = call->next)
		if (call->req)
			return TAKE(call->req);
	return NULL;
}

void controls_dismiss(struct controls *c)
{
	fuse_req_t req;

	while ((req = claim_any(c)))
		reply_failure(req, -ESHUTDOWN, "the mount is being stopped");
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);
	while (c->answering)
		(void)cond_wait_until(&c->changed, &c->lock, COND_NEVER);
}

void controls_cleanup(struct controls *c)
{
	(void)pthread_mutex_lock(&c->lock);
	while (c->calls)
		(void)cond_wait_until(&c->changed, &c->lock, COND_NEVER);
	(void)pthread_mutex_unlock(&c->lock);
	while (c->texts) {
		struct control_text *text = c->texts;

		c->texts = text->next;
		text_free(text);
	}
	(void)pthread_cond_destroy(&c->changed);
	(void)pthread_mutex_destroy(&c->lock);
}

/* False: there are too many. */
static bool enter(struct controls *c, struct control_call *call)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	if (c->calls_count == CONTROLS_LIMIT)
		return false;
	c->calls_count++;
	call->next = c->calls;
	call->link = &c->calls;
	if (call->next)
		call->next->link = &call->next;
	c->calls = call;
	return true;
}

static void leave(struct controls *c, struct control_call *call)
{
	(void)pthread_mutex_lock(&c->lock);
	*call->link = call->next;
	if (call->next)
		call->next->link = call->link;
	c->calls_count--;
	(void)pthread_cond_broadcast(&c->changed);
	(void)pthread_mutex_unlock(&c->lock);
	free(call);
}

/*
 * libfuse calls this when the client was interrupted, perhaps while the call's
 * thread is answering: so the call is looked for by its request, which libfuse
 * keeps alive for the time being, and not by a pointer that may be stale.
 */
static void interrupted(fuse_req_t req, void *arg)
{
	struct controls *c = arg;
	bool ours = false;

	(void)pthread_mutex_lock(&c->lock);
	for (struct control_call *call = c->calls; call; call = call->next)
		if (call->req == req) {
			call->req = NULL;
			ours = true;
		}
	(void)pthread_mutex_unlock(&c->lock);
	if (ours)
		(void)fuse_reply_err(req, EINTR);
}

/* Keep a text for its later pieces, and the number of texts small. */
static int keep(struct controls *c, struct buf *text, uint64_t token)
{
	struct control_text *kept = calloc(1, sizeof(*kept));
	struct control_text *oldest = NULL, **link;
	int n = 0;

	if (!kept)
		return error_set(-ENOMEM, "no memory for a reply");
	kept->token = token;
	kept->text = *text;
	memset(text, 0, sizeof(*text));
	(void)pthread_mutex_lock(&c->lock);
	kept->next = c->texts;
	c->texts = kept;
	for (link = &c->texts; *link && n < CONTROLS_TEXTS; n++)
		link = &(*link)->next;
	oldest = TAKE(*link);
	(void)pthread_mutex_unlock(&c->lock);
	if (oldest)
		text_free(oldest);
	return 0;
}

static struct control_text *take_text(struct controls *c, uint64_t token)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	for (struct control_text **link = &c->texts; *link;
	     link = &(*link)->next)
		if ((*link)->token == token) {
			struct control_text *text = *link;

			*link = text->next;
			return text;
		}
	return NULL;
}

static void give_back(struct controls *c, struct control_text *text)
{
	AUTO(unlock) pthread_mutex_t *held = lock(&c->lock);

	text->next = c->texts;
	c->texts = text;
}

/* The first piece of a text, which is kept if there are more. */
static void reply_text(struct controls *c, fuse_req_t req, struct buf *text)
{
	struct control_message message;
	uint64_t token = 0;
	int rc = 0;

	if (text->size > CONTROL_TEXT_SIZE)
		do
			io_random(&token, sizeof(token));
		while (!token);
	fill_piece(&message, text, token, 0);
	if (token)
		rc = keep(c, text, token);
	if (rc < 0)
		reply_failure(req, rc, error_message());
	else
		reply_message(req, &message);
}

static void *run_call(void *arg)
{
	struct control_call *call = arg;
	struct mount *m = call->mount;
	AUTO(buf) struct buf text = BUF_INIT(CONTROLS_TEXT_LIMIT);
	int rc = m->config.control(m->config.arg, call->command, call->path,
				   &text);
	fuse_req_t req = claim(&m->controls, call);

	if (req && rc < 0)
		reply_failure(req, rc, error_message());
	else if (req)
		reply_text(&m->controls, req, &text);
	if (req)
		answered(&m->controls);
	leave(&m->controls, call);
	return NULL;
}

/* The next piece of a text that was answered before. */
static void reply_next(struct mount *m, fuse_req_t req,
		       const struct control_message *in)
{
	struct control_text *text = take_text(&m->controls, in->token);
	struct control_message message;

	if (!text || in->offset > text->text.size) {
		reply_failure(req, -ESTALE, "the reply is gone; ask again");
		if (text)
			text_free(text);
		return;
	}
	fill_piece(&message, &text->text, in->token, in->offset);
	reply_message(req, &message);
	if (in->offset + message.size == text->text.size)
		text_free(text);
	else
		give_back(&m->controls, text);
}

static void start_call(struct mount *m, fuse_req_t req, struct inode *inode,
		       unsigned command)
{
	struct control_call *call = calloc(1, sizeof(*call));
	int rc;

	if (!call) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	call->mount = m;
	call->req = req;
	call->command = command;
	rc = inode_path(&m->inodes, inode, call->path);
	if (rc == 0 && !enter(&m->controls, call))
		rc = error_set(-EAGAIN,
			       "%d requests are being answered; "
			       "try again",
			       CONTROLS_LIMIT);
	if (rc < 0) {
		reply_failure(req, rc, error_message());
		free(call);
		return;
	}
	fuse_req_interrupt_func(req, interrupted, &m->controls);
	rc = worker_thread(run_call, call);
	if (rc == 0)
		return;
	/* No interrupt can have come: this is the thread that reads them. */
	call->req = NULL;
	reply_failure(req, rc, error_message());
	leave(&m->controls, call);
}

static void claim_handle(fuse_req_t req, const struct inode *inode,
			 struct fuse_file_info *fi, const void *in,
			 size_t in_size)
{
	struct mount *m = mount_of(req);
	const struct control_ours *ours = in;

	if (inode->type != S_IFREG || in_size < sizeof(*ours) ||
	    !m->config.helper_nonce ||
	    memcmp(ours->nonce, m->config.helper_nonce, CONTROL_NONCE_SIZE)) {
		(void)fuse_reply_err(req, ENOTTY);
		return;
	}
	handle_disregard(&m->handles, handle_of(fi));
	(void)fuse_reply_ioctl(req, 0, NULL, 0);
}

static void op_ioctl(fuse_req_t req, fuse_ino_t number, unsigned command,
		     void *arg, struct fuse_file_info *fi, unsigned flags,
		     const void *in, size_t in_size, size_t out_size)
{
	struct mount *m = mount_of(req);
	struct inode *inode = inode_of_request(req, number);
	const struct control_message *message = in;

	if (command == CONTROL_OURS)
		claim_handle(req, inode, fi, in, in_size);
	else if ((command != CONTROL_SYNC && command != CONTROL_STATUS) ||
		 !m->config.control)
		(void)fuse_reply_err(req, ENOTTY);
	else if (in_size < sizeof(*message) || out_size < sizeof(*message))
		(void)fuse_reply_err(req, EINVAL);
	else if (message->version != CONTROL_VERSION)
		reply_failure(req, -EPROTO,
			      "the mount is of another version "
			      "of litebucket than the command");
	else if (message->token)
		reply_next(m, req, message);
	else if (command == CONTROL_SYNC && inode->type != S_IFREG)
		reply_failure(req, -ENOENT, "it is not a database of the mount");
	else
		start_call(m, req, inode, command);
}

void ops_control_fill(struct fuse_lowlevel_ops *ops)
{
	ops->ioctl = op_ioctl;
}
