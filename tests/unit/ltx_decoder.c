#include <ctype.h>
#include <dirent.h>
#include <lz4frame.h>
#include <stdlib.h>

#include "tests/lib/ltx_files.h"

/* A line of manifest.tsv: what superfly/ltx says of the file it wrote. */
struct entry {
	char name[64], kind[128], base[64];
	unsigned long long size, flags, page_size, commit, min, max, timestamp;
	unsigned long long pre_apply, wal_offset, wal_size, salt1, salt2, node;
	unsigned long long pages, post_apply, checksum;
};

static bool next_entry(const char **text, struct entry *e)
{
	const char *line = *text;
	const char *end = strchr(line, '\n');
	int n;

	if (!end)
		return false;
	n = sscanf(line,
		   "%63[^\t]\t%127[^\t]\t%63[^\t]\t%llu\t%llx\t%llu\t%llu\t"
		   "%llx\t%llx\t%llu\t%llx\t%llu\t%llu\t%llx\t%llx\t%lli\t"
		   "%llu\t%llx\t%llx",
		   e->name, e->kind, e->base, &e->size, &e->flags,
		   &e->page_size, &e->commit, &e->min, &e->max, &e->timestamp,
		   &e->pre_apply, &e->wal_offset, &e->wal_size, &e->salt1,
		   &e->salt2, &e->node, &e->pages, &e->post_apply,
		   &e->checksum);
	if (n != 19)
		fail_msg("manifest.tsv: %d fields in '%.60s'", n, line);
	*text = end + 1;
	return true;
}

static void compare(const struct entry *e, const struct decoded *d)
{
	const struct ltx_header *h = &d->header;

	assert_int_equal(h->flags, e->flags);
	assert_int_equal(h->page_size, e->page_size);
	assert_int_equal(h->commit, e->commit);
	assert_int_equal(h->min_txid, e->min);
	assert_int_equal(h->max_txid, e->max);
	assert_int_equal(h->timestamp_ms, e->timestamp);
	assert_int_equal(h->pre_apply, e->pre_apply);
	assert_int_equal(h->wal_offset, e->wal_offset);
	assert_int_equal(h->wal_size, e->wal_size);
	assert_int_equal(h->wal_salt1, e->salt1);
	assert_int_equal(h->wal_salt2, e->salt2);
	assert_int_equal(h->node_id, e->node);
	assert_int_equal(h->pre_dbsum, 0);
	assert_int_equal(h->post_dbsum, 0);
	assert_int_equal(h->kind, LTX_BATCH);
	assert_int_equal(d->n_pages, e->pages);
	assert_int_equal(d->trailer.post_apply, e->post_apply);
	assert_int_equal(d->trailer.file_checksum, e->checksum);
}

/* Apply the file to its base and compare with the database it must give. */
static void check_database(const struct entry *e, const struct buf *file)
{
	AUTO_BUF(db);
	AUTO_BUF(expected);
	struct decoded d;

	if (e->base[0] != '-')
		read_fixture(&db, "%s", e->base);
	read_fixture(&expected, "%s.db", e->name);
	assert_int_equal(decode(file->data, file->size, &db, &d), 0);
	assert_int_equal(db.size, expected.size);
	if (db.size)
		assert_memory_equal(db.data, expected.data, db.size);
}

static void every_fixture_decodes_to_its_database(void **state)
{
	AUTO_BUF(manifest);
	const char *line;
	struct entry e;
	int checked = 0;

	read_fixture(&manifest, "manifest.tsv");
	line = strchr(manifest.data, '\n') + 1;
	while (next_entry(&line, &e)) {
		AUTO_BUF(file);
		struct decoded d;

		if (strncmp(e.kind, "ltx3", 4) != 0)
			continue;
		read_fixture(&file, "%s.ltx", e.name);
		assert_int_equal(file.size, e.size);
		if (decode(file.data, file.size, NULL, &d) < 0)
			fail_msg("%s: %s", e.name, error_message());
		compare(&e, &d);
		/* The database of this one would have a gigabyte. */
		if (strcmp(e.name, "nock-lockpage-65536") != 0)
			check_database(&e, &file);
		checked++;
	}
	assert_int_equal(checked, 49);
}

/* What the sentence must name. */
static const struct {
	const char *name, *words;
} bad[] = {
	{ "bad/bad-flags-bit0", "flags 0x00000001" },
	{ "bad/bad-magic", "does not begin with LTX1" },
	{ "bad/bad-pagesize-256", "page size 256" },
	{ "bad/compsize-4g", "page 1, at byte 100: its block size 4294967295" },
	{ "bad/flip-filesum", "file checksum" },
	{ "bad/flip-payload", "file checksum" },
	{ "bad/flip-postapply", "file checksum" },
	{ "bad/junk-tail", "something follows the trailer, at byte 227" },
	{ "bad/min-gt-max", "min TXID 0000000000000003 is above" },
	{ "bad/min0", "min TXID is zero" },
	{ "bad/page-flag-bit1", "page flags 0x0003" },
	{ "bad/pgno0-flag1", "page number 0" },
	{ "bad/reserved-nonzero-badsum", "file checksum" },
	{ "bad/snap-preapply-set", "pre-apply checksum" },
	{ "bad/trunc-hdr", "cut off in the header: it ends after 99 bytes" },
	{ "bad/trunc-index", "cut off in the page index: it ends after 202" },
	{ "bad/trunc-page", "cut off in the block of a page: it ends after 112" },
	{ "bad/trunc-trailer", "cut off in the trailer: it ends after 226" },
	{ "v1-litefs-raw-4096", "LiteFS (LTX version 1)" },
	{ "v1-litefs-lz4-4096", "LiteFS (LTX version 1)" },
};

static void every_bad_file_is_refused_by_what_is_wrong(void **state)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		AUTO_BUF(file);

		read_fixture(&file, "%s.ltx", bad[i].name);
		if (decode_buf(&file) != -ERR_CORRUPT)
			fail_msg("%s was not refused", bad[i].name);
		assert_message(bad[i].words);
	}
}

static void no_bad_file_is_forgotten(void **state)
{
	DIR *dir = opendir(FIXTURES "/ltx/bad");
	const struct dirent *entry;
	size_t found = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		found += strstr(entry->d_name, ".ltx") != NULL;
	(void)closedir(dir);
	assert_int_equal(found, sizeof(bad) / sizeof(*bad) - 2);
}

/* "page 1" and then, where its flags would be, the magic of a frame. */
static void a_file_of_an_early_beta_is_refused_by_name(void **state)
{
	AUTO(forge) struct forge f = FORGE_INIT;
	struct ltx_header h = plain_header(512, 1, 1, 1);

	forge_header(&f, &h);
	forge_bytes(&f, "\0\0\0\1\x04\x22\x4d\x18", 8);
	assert_int_equal(decode_buf(&f.file), -ERR_CORRUPT);
	assert_message("early Litestream beta");
}

/* LiteFS's page begins "00 00 .." or "00 01 ..", as overflow pages do. */
static void a_litefs_file_of_an_overflow_page_is_refused_by_name(void **state)
{
	AUTO(forge) struct forge f = FORGE_INIT;
	struct ltx_header h = plain_header(512, 3, 2, 2);

	forge_header(&f, &h);
	forge_bytes(&f, "\0\0\0\2\0\0\0\3", 8);
	forge_bytes(&f, "some text", 9);
	assert_int_equal(decode_buf(&f.file), -ERR_CORRUPT);
	assert_message("LiteFS (LTX version 1)");
}

static const char *const whole[] = {
	"snap-512-3p",
	"delta-512",
	"compact-2-3-512",
	"legacyframe-512",
	"nock-shrink-65536",
	"delete-4096",
};

static void a_file_cut_anywhere_is_refused(void **state)
{
	for (size_t i = 0; i < sizeof(whole) / sizeof(*whole); i++) {
		AUTO_BUF(file);

		read_fixture(&file, "%s.ltx", whole[i]);
		assert_int_equal(decode_buf(&file), 0);
		for (file.size--; file.size > 0; file.size--) {
			assert_int_equal(decode_buf(&file), -ERR_CORRUPT);
			assert_message("cut off");
		}
		assert_int_equal(decode_buf(&file), -ERR_CORRUPT);
	}
}

/* May this change of the file pass?  Only if it gives the same content. */
static void check_flip(const struct buf *file, const struct buf *original,
		       const char *name, size_t at)
{
	AUTO_BUF(db);
	struct decoded d;

	if (decode(file->data, file->size, &db, &d) == -ERR_CORRUPT)
		return;
	if (db.size != original->size ||
	    memcmp(db.data, original->data, db.size) != 0)
		fail_msg("%s: byte %zu changed what is read", name, at);
	/* Two LZ4 blocks can say the same. */
	if (at < LTX_HEADER_SIZE + 10)
		fail_msg("%s: byte %zu was changed unseen", name, at);
}

static void no_changed_byte_changes_what_is_read(void **state)
{
	for (size_t i = 0; i < sizeof(whole) / sizeof(*whole); i++) {
		AUTO_BUF(file);
		AUTO_BUF(db);
		struct decoded d;

		read_fixture(&file, "%s.ltx", whole[i]);
		assert_int_equal(decode(file.data, file.size, &db, &d), 0);
		for (size_t at = 0; at < file.size; at++)
			for (unsigned bits = 1; bits < 256; bits += bits + 7) {
				file.data[at] ^= (char)bits;
				check_flip(&file, &db, whole[i], at);
				file.data[at] ^= (char)bits;
			}
	}
}

/*
 * Files that are wrong although their checksum is right: what a broken writer
 * would leave, and what superfly/ltx partly accepts.
 */
static uint8_t page[100000];

static struct ltx_header forged_header;

static void forged_whole(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	forge_end_of_pages(f);
	forge_index(f);
	forge_trailer(f, 0);
}

static void short_block(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 500, 512);
	forge_end_of_pages(f);
	forge_index(f);
	forge_trailer(f, 0);
}

static void long_block(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 513, 512);
}

static void empty_block(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_bytes(f, "\0\0\0\1\0\1\0\0\0\0", 10);
}

static void no_lz4(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_bytes(f, "\0\0\0\1\0\1\0\0\0\4", 10);
	forge_payload(f, "\xff\xff\xff\xff", 4);
}

static void pages_missing_at_the_end(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_end_of_pages(f);
	forge_index(f);
	forge_trailer(f, 0);
}

static void page_missing_inside(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 2, page, 512, 512);
}

static void page_twice(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 1, page, 512, 512);
}

static void page_beyond_the_end(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	forge_page(f, 3, page, 512, 512);
}

static void lock_page(struct forge *f)
{
	forged_header.min_txid = forged_header.max_txid = 2;
	forged_header.commit = 3000000;
	forge_header(f, &forged_header);
	forge_page(f, 2097153, page, 512, 512);
}

static void end_with_index(struct forge *f)
{
	forge_end_of_pages(f);
	forge_index(f);
	forge_trailer(f, 0);
}

static void index_without_a_page(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	buf_reset(&f->index);
	forge_page(f, 2, page, 512, 512);
	end_with_index(f);
}

static void index_with_another_offset(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	f->index.data[1] ^= 1;
	end_with_index(f);
}

static void index_with_a_page_too_many(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	forge_index_entry(f, 3, 500, 20);
	end_with_index(f);
}

static void index_with_a_long_varint(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	buf_reset(&f->index);
	assert_int_equal(buf_append(&f->index, "\x81\0", 2), 0);
	end_with_index(f);
}

static void index_with_a_wrong_size(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	forge_end_of_pages(f);
	forge_bytes(f, f->index.data, f->index.size);
	forge_bytes(f, "\0\0\0\0\0\0\0\0\0\x80", 9);
	forge_trailer(f, 0);
}

static void post_apply_against_the_flags(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_page(f, 2, page, 512, 512);
	forge_end_of_pages(f);
	forge_index(f);
	forge_trailer(f, LTX_CHECKSUM_FLAG | 5);
}

static void post_apply_missing(struct forge *f)
{
	forged_header.flags = 0;
	forged_whole(f);
}

static void post_apply_of_something_else(struct forge *f)
{
	forged_header.flags = 0;
	post_apply_against_the_flags(f);
}

static void flags_on_a_later_page(struct forge *f)
{
	forge_header(f, &forged_header);
	forge_page(f, 1, page, 512, 512);
	forge_bytes(f, "\0\0\0\2\x80\1", 6);
}

static const struct {
	void (*forge)(struct forge *f);
	const char *words;
} forgeries[] = {
	{ short_block, "page 2, at byte" },
	{ short_block, "gives 500 bytes instead of 512" },
	{ long_block, "page 1, at byte 100: its LZ4 block is damaged" },
	{ empty_block, "block size 0" },
	{ no_lz4, "its LZ4 block is damaged" },
	{ pages_missing_at_the_end, "page 2 is missing from a snapshot" },
	{ page_missing_inside, "page 1 is missing from a snapshot" },
	{ page_twice, "page 1 comes after page 1" },
	{ page_beyond_the_end, "page 3 is beyond the end" },
	{ lock_page, "lock page" },
	{ index_without_a_page, "page index does not match" },
	{ index_with_another_offset, "page index does not match" },
	{ index_with_a_page_too_many, "page index does not match" },
	{ index_with_a_long_varint, "page index" },
	{ index_with_a_wrong_size, "page index does not match" },
	{ post_apply_against_the_flags, "post-apply checksum is set" },
	{ post_apply_missing, "post-apply checksum is missing" },
	{ post_apply_of_something_else, "is not that of the pages" },
	{ flags_on_a_later_page, "page flags 0x8001" },
};

static void a_forgery_with_a_right_checksum_is_refused(void **state)
{
	fill_noise(page, sizeof(page), 3);
	for (size_t i = 0; i < sizeof(forgeries) / sizeof(*forgeries); i++) {
		AUTO(forge) struct forge f = FORGE_INIT;
		AUTO(forge) struct forge good = FORGE_INIT;

		/* The forger's art is good enough. */
		forged_header = plain_header(512, 2, 1, 1);
		forged_whole(&good);
		assert_int_equal(decode_buf(&good.file), 0);

		forgeries[i].forge(&f);
		if (decode_buf(&f.file) != -ERR_CORRUPT)
			fail_msg("forgery %zu passed: %s", i,
				 forgeries[i].words);
		assert_message(forgeries[i].words);
	}
}

/* One page as a frame with these preferences, in a file of its own. */
static int decode_frame(const LZ4F_preferences_t *how, size_t content)
{
	static char frame[2 * LTX_MAX_PAGE_SIZE];
	AUTO(forge) struct forge f = FORGE_INIT;
	struct ltx_header h = plain_header(4096, 2, 1, 1);
	size_t size = LZ4F_compressFrame(frame, sizeof(frame), page, content,
					 how);
	uint64_t begin;

	assert_false(LZ4F_isError(size));
	forge_header(&f, &h);
	/* A block, then a frame: one file may have both. */
	forge_page(&f, 1, page, 4096, 4096);
	begin = f.file.size;
	forge_bytes(&f, "\0\0\0\2\0\0", 6);
	f.crc = ltx_crc64(f.crc, page, 4096);
	forge_payload(&f, frame, size);
	forge_index_entry(&f, 2, begin, f.file.size - begin);
	end_with_index(&f);
	return decode_buf(&f.file);
}

static void frames_are_read_and_checked(void **state)
{
	const LZ4F_preferences_t usual = {
		.frameInfo.blockSizeID = LZ4F_max64KB,
		.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled,
	};
	LZ4F_preferences_t how = usual;

	fill_page(page, sizeof(page), 11);
	assert_int_equal(decode_frame(&how, 4096), 0);
	how.frameInfo.contentSize = 4096;
	assert_int_equal(decode_frame(&how, 4096), 0);
	how = usual;
	how.frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
	assert_int_equal(decode_frame(&how, 4096), 0);

	how = usual;
	how.frameInfo.contentChecksumFlag = LZ4F_noContentChecksum;
	assert_int_equal(decode_frame(&how, 4096), -ERR_CORRUPT);
	assert_message("no content checksum");
	assert_int_equal(decode_frame(&usual, 4095), -ERR_CORRUPT);
	assert_message("gives 4095 bytes instead of 4096");
	assert_int_equal(decode_frame(&usual, 4097), -ERR_CORRUPT);
	assert_message("gives more than 4096 bytes");
	fill_noise(page, sizeof(page), 11);
	assert_int_equal(decode_frame(&usual, 4096), 0);
	assert_int_equal(decode_frame(&usual, 4200), -ERR_CORRUPT);
	assert_int_equal(decode_frame(&usual, 60000), -ERR_CORRUPT);
	assert_message("a block of 60004 bytes");
	how = usual;
	how.frameInfo.blockSizeID = LZ4F_max256KB;
	assert_int_equal(decode_frame(&how, 100000), -ERR_CORRUPT);
	assert_message("blocks larger than a page");
}

/* Gives one byte at a time, and a failure at the end if asked. */
struct drop_source {
	struct source source;
	struct mem_source from;
	int end;
};

static ssize_t drop_read(struct source *source, void *data, size_t size)
{
	struct drop_source *s = (struct drop_source *)source;
	ssize_t n = source_read(&s->from.source, data, size ? 1 : 0);

	if (n == 0 && s->end)
		return error_set(s->end, "the network is down");
	return n;
}

static void a_source_may_give_a_byte_at_a_time(void **state)
{
	AUTO_BUF(file);
	struct drop_source in = { .source.read = drop_read };
	struct decoded d;

	read_fixture(&file, "legacyframe-4096.ltx");
	mem_source_init(&in.from, file.data, file.size);
	assert_int_equal(decode_source(&in.source, NULL, &d), 0);
	assert_int_equal(d.n_pages, 3);
}

static void what_the_source_says_is_passed_on(void **state)
{
	AUTO_BUF(file);
	struct decoded d;

	read_fixture(&file, "snap-512-2p.ltx");
	for (size_t size = 0; size <= file.size; size++) {
		struct drop_source in = {
			.source.read = drop_read,
			.end = -ENETDOWN,
		};

		mem_source_init(&in.from, file.data, size);
		assert_int_equal(decode_source(&in.source, NULL, &d),
				 -ENETDOWN);
		assert_message("the network is down");
	}
}

static void a_failure_stays(void **state)
{
	AUTO_BUF(file);
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	struct mem_source in;
	uint32_t pgno = 77;

	read_fixture(&file, "bad/compsize-4g.ltx");
	mem_source_init(&in, file.data, file.size);
	assert_int_equal(ltx_decoder_new(&in.source, &dec), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(ltx_decoder_page(dec, &pgno, page),
				 -ERR_CORRUPT);
	assert_message("failed before");
	assert_int_equal(ltx_decoder_finish(dec, NULL), -ERR_CORRUPT);
	assert_int_equal(pgno, 77);
}

static void the_end_is_only_behind_the_last_page(void **state)
{
	AUTO_BUF(file);
	AUTO(ltx_decoder) struct ltx_decoder *dec = NULL;
	struct mem_source in;
	uint32_t pgno;

	read_fixture(&file, "snap-512-2p.ltx");
	mem_source_init(&in, file.data, file.size);
	assert_int_equal(ltx_decoder_new(&in.source, &dec), 0);
	assert_int_equal(ltx_decoder_page(dec, &pgno, page), 1);
	assert_int_equal(ltx_decoder_finish(dec, NULL), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_fixture_decodes_to_its_database),
		cmocka_unit_test(every_bad_file_is_refused_by_what_is_wrong),
		cmocka_unit_test(no_bad_file_is_forgotten),
		cmocka_unit_test(a_file_of_an_early_beta_is_refused_by_name),
		cmocka_unit_test(
			a_litefs_file_of_an_overflow_page_is_refused_by_name),
		cmocka_unit_test(a_file_cut_anywhere_is_refused),
		cmocka_unit_test(no_changed_byte_changes_what_is_read),
		cmocka_unit_test(a_forgery_with_a_right_checksum_is_refused),
		cmocka_unit_test(frames_are_read_and_checked),
		cmocka_unit_test(a_source_may_give_a_byte_at_a_time),
		cmocka_unit_test(what_the_source_says_is_passed_on),
		cmocka_unit_test(a_failure_stays),
		cmocka_unit_test(the_end_is_only_behind_the_last_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
