#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/paths.h"
#include "cli/report.h"
#include "ltx/name.h"
#include "restorer/layout.h"
#include "restorer/unlock.h"

#include "cli/cli.h"

struct unlock_settings {
	bool json;
};

static const struct option unlock_options[] = {
	OPTION_JSON(struct unlock_settings),
	{0},
};

static int print(const struct unlock_settings *s, const char *path,
		 const struct unlocked *u)
{
	const char *mode = u->wal ? "wal" : "delete";
	char txid[LTX_TXID_TEXT_SIZE] = "-";
	json_t *d;

	if (!s->json) {
		if (u->txid)
			ltx_txid_format(u->txid, txid);
		(void)printf("txid=%s journal_mode=%s path=%s\n", txid, mode,
			     log_quote(path));
		return 0;
	}
	d = report_document();
	report_field(&d, "path", report_json_text(path));
	report_field(&d, "txid", report_json_txid(u->txid));
	report_field(&d, "journal_mode", json_string(mode));
	return report_json(d);
}

/* No follower may come while it is changed, so its directory is held. */
static int unlock_there(const char *path, const char *directory,
			const char *db, struct unlocked *ret)
{
	AUTO(mem) char *state = NULL;
	AUTO(fd) int held = -1;
	int rc = layout_lock(directory, &held);

	if (rc == 0)
		rc = layout_state(directory, db, &state);
	if (rc == -EBUSY)
		rc = error_wrap(rc, "stop the follower first");
	return rc < 0 ? rc : unlock_replica(path, state, ret);
}

static int unlock(const char *path, struct unlocked *ret)
{
	AUTO(mem) char *resolved = NULL, *directory = NULL, *db = NULL;
	int rc = paths_resolve(path, &resolved);

	if (rc < 0)
		return rc;
	rc = layout_find(resolved, &directory, &db);
	if (rc == -ENOENT)
		rc = unlock_replica(resolved, NULL, ret);
	else if (rc == 0)
		rc = unlock_there(resolved, directory, db, ret);
	if (rc == 0 && ret->txid == 0)
		report_warning("'%s': nothing is known of the state that it is "
			       "in, or it was changed since", path);
	return rc;
}

static int run(const void *settings, char **operands)
{
	const char *path = operands[0];
	struct unlocked u;
	int rc = unlock(path, &u);

	if (rc == 0)
		rc = print(settings, path, &u);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "unlocking '%s'", path));
	return CLI_OK;
}

const struct verb cmd_unlock = {
	.name = "unlock",
	.operands = {"FILE"},
	.summary = "make a replica an ordinary, writable database",
	.description =
		"Take the write protection from the replica FILE, and give it "
		"the journal mode\n"
		"that the original has. Its follower must be stopped, and "
		"nobody may have it\n"
		"open. A follower that is started again leaves it alone. On "
		"success one line is\n"
		"printed: txid=HEX journal_mode=MODE path=FILE.",
	.options = unlock_options,
	.settings_size = sizeof(struct unlock_settings),
	.run = run,
};
