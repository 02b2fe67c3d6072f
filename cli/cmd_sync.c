#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/report.h"
#include "fuse/control.h"

#include "cli/cli.h"

enum {
	REPLY_MAX = 4096
};

struct sync_settings {
	bool json;
};

static const struct option sync_options[] = {
	OPTION_JSON(struct sync_settings),
	{0},
};

static int print(const struct sync_settings *s, const char *path,
		 const char *txid)
{
	json_t *d;

	if (!s->json) {
		(void)puts(txid);
		return 0;
	}
	d = report_document();
	report_field(&d, "path", report_json_text(path));
	report_field(&d, "txid", json_string(txid));
	return report_json(d);
}

static int run(const void *settings, char **operands)
{
	const char *path = operands[0];
	AUTO(buf) struct buf reply = BUF_INIT(REPLY_MAX);
	int rc = control_call(path, CONTROL_SYNC, &reply);

	if (rc == 0)
		rc = print(settings, path, reply.data);
	if (rc < 0)
		return cli_fail(error_wrap(rc, "syncing '%s'", path));
	return CLI_OK;
}

const struct verb cmd_sync = {
	.name = "sync",
	.operands = {"PATH"},
	.summary = "wait until a database is in the bucket",
	.description =
		"Return when all that was committed to the database PATH (in a "
		"mounted directory)\n"
		"before is in the bucket, and print the TXID it has there: 16 "
		"hex digits.",
	.options = sync_options,
	.settings_size = sizeof(struct sync_settings),
	.run = run,
};
