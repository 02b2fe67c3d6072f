#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "fuse/inode.h"

/* A directory with real files, and the table over it. */
struct world {
	char dir[64];
	int dirfd;
	struct inode_table table;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/inode-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(inode_table_init(&w->table, w->dirfd), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];

	inode_table_cleanup(&w->table);
	(void)close(w->dirfd);
	(void)snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static void make_file(struct inode *parent, const char *name)
{
	int fd = openat(parent->fd, name, O_CREAT | O_WRONLY, 0644);

	assert_true(fd >= 0);
	(void)close(fd);
}

/* As the mount does for LOOKUP. */
static struct inode *look_up(struct world *w, struct inode *parent,
			     const char *name)
{
	struct inode *inode = NULL;
	struct stat st;
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW);

	assert_true(fd >= 0);
	assert_int_equal(inode_add(&w->table, parent, name, fd, &inode, &st),
			 0);
	return inode;
}

static struct inode *look_up_new_dir(struct world *w, struct inode *parent,
				     const char *name)
{
	assert_int_equal(mkdirat(parent->fd, name, 0755), 0);
	return look_up(w, parent, name);
}

static struct inode *look_up_new_file(struct world *w, struct inode *parent,
				      const char *name)
{
	make_file(parent, name);
	return look_up(w, parent, name);
}

/* How many inodes went. */
static unsigned forget(struct world *w, struct inode *inode, uint64_t lookups)
{
	struct inode *dead = inode_forget(&w->table, inode, lookups);
	unsigned n = 0;

	while (dead) {
		struct inode *next = dead->next_dead;

		inode_free(dead);
		dead = next;
		n++;
	}
	return n;
}

static void assert_path(struct world *w, struct inode *inode,
			const char *expected)
{
	char path[INODE_PATH_SIZE];

	assert_int_equal(inode_path(&w->table, inode, path), 0);
	assert_string_equal(path, expected);
}

static void assert_no_path(struct world *w, struct inode *inode)
{
	char path[INODE_PATH_SIZE];

	assert_int_equal(inode_path(&w->table, inode, path), -ENOENT);
}

static void rename_to(struct world *w, struct inode *parent, const char *name,
		      struct inode *new_parent, const char *new_name)
{
	assert_int_equal(renameat(parent->fd, name, new_parent->fd, new_name),
			 0);
	inode_renamed(&w->table, parent, name, new_parent,
		      inode_name_new(new_name));
}

static void the_root_is_number_one_and_has_an_empty_path(void **state)
{
	struct world *w = *state;

	assert_ptr_equal(inode_of(&w->table, 1), &w->table.root);
	assert_int_equal(inode_number(&w->table, &w->table.root), 1);
	assert_path(w, &w->table.root, "");
	assert_int_equal(forget(w, &w->table.root, 5), 0);
}

static void a_file_looked_up_twice_is_one_inode(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");

	assert_ptr_equal(look_up(w, root, "a"), a);
	assert_ptr_equal(inode_of(&w->table, inode_number(&w->table, a)), a);
	assert_int_equal(forget(w, a, 1), 0);
	assert_path(w, a, "a");
	assert_int_equal(forget(w, a, 1), 1);
}

static void a_new_file_is_never_taken_for_a_forgotten_one(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");
	uint64_t generation = a->generation;

	assert_int_equal(forget(w, a, 1), 1);
	a = look_up(w, root, "a");
	assert_int_not_equal(a->generation, generation);
}

static void a_path_follows_the_directories_above(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *one = look_up_new_dir(w, root, "one");
	struct inode *two = look_up_new_dir(w, one, "two");
	struct inode *file = look_up_new_file(w, two, "app.db");

	assert_path(w, file, "one/two/app.db");
	rename_to(w, root, "one", root, "eins");
	assert_path(w, file, "eins/two/app.db");
	rename_to(w, one, "two", root, "zwei");
	assert_path(w, file, "zwei/app.db");
}

static void a_directory_lives_as_long_as_a_name_below_it(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *one = look_up_new_dir(w, root, "one");
	struct inode *two = look_up_new_dir(w, one, "two");
	struct inode *file = look_up_new_file(w, two, "a");

	assert_int_equal(forget(w, one, 1), 0);
	assert_int_equal(forget(w, two, 1), 0);
	assert_path(w, file, "one/two/a");
	assert_int_equal(forget(w, file, 1), 3);
	assert_int_equal(w->table.inodes.count, 0);
	assert_int_equal(w->table.names.count, 0);
}

static void an_unlinked_file_has_no_path_and_lives_until_forgotten(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");

	inode_unlinked(&w->table, root, "a");
	assert_no_path(w, a);
	assert_int_equal(forget(w, a, 1), 1);
}

static void what_a_rename_replaces_loses_its_name(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");
	struct inode *b = look_up_new_file(w, root, "b");

	rename_to(w, root, "a", root, "b");
	assert_path(w, a, "b");
	assert_no_path(w, b);
	assert_ptr_equal(look_up(w, root, "b"), a);
	/* Nor does the old name lead anywhere. */
	inode_unlinked(&w->table, root, "b");
	assert_no_path(w, a);
}

static void a_file_with_two_names_keeps_the_one_that_is_left(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");

	assert_int_equal(linkat(root->fd, "a", root->fd, "b", 0), 0);
	assert_ptr_equal(look_up(w, root, "b"), a);
	inode_unlinked(&w->table, root, "b");
	assert_path(w, a, "a");
	(void)look_up(w, root, "b");
	inode_unlinked(&w->table, root, "a");
	assert_path(w, a, "b");
}

static void renaming_a_file_to_its_other_name_changes_nothing(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *a = look_up_new_file(w, root, "a");

	assert_int_equal(linkat(root->fd, "a", root->fd, "b", 0), 0);
	(void)look_up(w, root, "b");
	rename_to(w, root, "a", root, "b"); /* rename(2) leaves both, too */
	inode_unlinked(&w->table, root, "b");
	assert_path(w, a, "a");
}

static void a_name_reused_behind_our_back_leads_to_the_new_file(void **state)
{
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *old = look_up_new_file(w, root, "a");
	struct inode *new;

	assert_int_equal(unlinkat(root->fd, "a", 0), 0);
	new = look_up_new_file(w, root, "a");
	assert_ptr_not_equal(old, new);
	assert_path(w, new, "a");
	assert_no_path(w, old);
}

static void a_path_that_is_too_long_is_refused(void **state)
{
	struct world *w = *state;
	struct inode *dir = &w->table.root;
	char name[256], path[INODE_PATH_SIZE];

	memset(name, 'x', 255);
	name[255] = '\0';
	for (int i = 0; i < 15; i++)
		dir = look_up_new_dir(w, dir, name);
	dir = look_up_new_dir(w, dir, "z");
	name[253] = '\0';
	assert_int_equal(inode_child_path(&w->table, dir, name, path), 0);
	assert_int_equal(strlen(path), INODE_PATH_SIZE - 1);
	name[253] = 'x';
	name[254] = '\0';
	assert_int_equal(inode_child_path(&w->table, dir, name, path),
			 -ENAMETOOLONG);
}

static void ten_thousand_names_come_and_go(void **state)
{
	enum {
		FILES = 10000
	};
	struct world *w = *state;
	struct inode *root = &w->table.root;
	struct inode *file = look_up_new_file(w, root, "file");
	char name[32];

	/* Names alone: they need no descriptors. */
	for (int i = 0; i < FILES; i++) {
		struct inode *same;
		struct stat st;
		int fd = openat(root->fd, "file", O_PATH);

		(void)snprintf(name, sizeof(name), "link-%d", i);
		assert_int_equal(inode_add(&w->table, root, name, fd, &same,
					   &st),
				 0);
		assert_ptr_equal(same, file);
	}
	assert_int_equal(w->table.names.count, FILES + 1);
	assert_int_equal(root->children, FILES + 1);
	for (int i = 0; i < FILES; i += 2) {
		(void)snprintf(name, sizeof(name), "link-%d", i);
		inode_unlinked(&w->table, root, name);
	}
	assert_int_equal(w->table.names.count, FILES / 2 + 1);
	assert_int_equal(forget(w, file, FILES + 1), 1);
	assert_int_equal(w->table.names.count, 0);
	assert_int_equal(root->children, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_root_is_number_one_and_has_an_empty_path),
		TEST(a_file_looked_up_twice_is_one_inode),
		TEST(a_new_file_is_never_taken_for_a_forgotten_one),
		TEST(a_path_follows_the_directories_above),
		TEST(a_directory_lives_as_long_as_a_name_below_it),
		TEST(an_unlinked_file_has_no_path_and_lives_until_forgotten),
		TEST(what_a_rename_replaces_loses_its_name),
		TEST(a_file_with_two_names_keeps_the_one_that_is_left),
		TEST(renaming_a_file_to_its_other_name_changes_nothing),
		TEST(a_name_reused_behind_our_back_leads_to_the_new_file),
		TEST(a_path_that_is_too_long_is_refused),
		TEST(ten_thousand_names_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
