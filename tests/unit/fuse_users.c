/* Which processes use a file: what /proc says, and what is found in it. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/users.h"

static void a_line_of_maps_names_a_file(void **state)
{
	char line[] = "7f0c8a000000-7f0c8a021000 rw-s 00008000 fe:01 "
		      "18446744073709551615    /srv/my app/shop.db-shm\n";
	struct users_file file;
	const char *path;

	assert_true(users_parse_map(line, &file, &path));
	assert_int_equal(major(file.dev), 0xfe);
	assert_int_equal(minor(file.dev), 1);
	assert_true(file.ino == UINT64_MAX);
	assert_string_equal(path, "/srv/my app/shop.db-shm");
}

static void a_line_of_maps_without_a_file_is_none(void **state)
{
	static const char *const lines[] = {
		"7ffd1c9e5000-7ffd1ca06000 rw-p 00000000 00:00 0    [stack]\n",
		"7f0c8a000000-7f0c8a021000 rw-p 00000000 00:00 0 \n",
		"7f0c8a000000-7f0c8a021000 rw-p 00000000 fe:01\n",
		"Size:                  4 kB\n",
		"\n",
		"",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		AUTO(mem) char *line = strdup(lines[i]);
		struct users_file file;
		const char *path;

		assert_false(users_parse_map(line, &file, &path));
	}
}

static void a_parent_is_found_behind_any_name(void **state)
{
	pid_t parent = 0;

	assert_true(users_parse_stat("12 (cat) S 7 12 12 0", &parent));
	assert_int_equal(parent, 7);
	assert_true(users_parse_stat("12 (a) R 1 (b) S 8 12 12", &parent));
	assert_int_equal(parent, 8);
	assert_false(users_parse_stat("12 (cat", &parent));
	assert_false(users_parse_stat("", &parent));
}

static void many_are_counted_and_some_are_named(void **state)
{
	static struct users users;
	char text[USERS_TEXT_SIZE];

	for (users.n = 0; users.n < 20; users.n++) {
		struct user *u = &users.list[users.n];

		u->pid = 100 + (pid_t)users.n;
		u->how = USERS_CWD;
		(void)strcpy(u->command, "sh");
		memset(u->path, 'x', users.n ? 200 : 3);
	}
	users_describe(&users, text);
	assert_true(strncmp(text,
			    "sh (pid 100, its working directory is 'xxx'), "
			    "sh (pid 101, ",
			    58) == 0);
	assert_non_null(strstr(text, "') and 17 more"));
	users.n = 1;
	users_describe(&users, text);
	assert_string_equal(text, "sh (pid 100, its working directory is "
				  "'xxx')");
}

/* A process that is not our child: it says that it is there, and waits. */
static pid_t stranger(void (*use)(const char *path), const char *path)
{
	int fds[2];
	pid_t child, pid = 0;

	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0) {
		pid = fork();
		if (pid > 0)
			_exit(0);
		pid = getpid();
		use(path);
		(void)!write(fds[1], &pid, sizeof(pid));
		(void)close(fds[1]);
		for (;;)
			(void)pause();
	}
	(void)waitpid(child, NULL, 0);
	assert_int_equal(read(fds[0], &pid, sizeof(pid)), sizeof(pid));
	(void)close(fds[0]);
	(void)close(fds[1]);
	return pid;
}

static void use_open(const char *path)
{
	(void)open(path, O_RDWR);
}

static void use_map(const char *path)
{
	int fd = open(path, O_RDWR);

	(void)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	(void)close(fd);
}

static void use_directory(const char *path)
{
	char copy[256];

	(void)snprintf(copy, sizeof(copy), "%s", path);
	*strrchr(copy, '/') = '\0';
	(void)!chdir(copy);
}

static void each_way_to_use_a_file_is_found(void **state)
{
	static const struct {
		void (*use)(const char *path);
		enum users_how how;
	} ways[] = {{use_open, USERS_OPEN},
		    {use_map, USERS_MAPPED},
		    {use_directory, USERS_CWD}};
	char dir[] = "/tmp/users-XXXXXX", deep[64], path[64];
	static struct users users;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(deep, sizeof(deep), "%s/deep", dir);
	(void)snprintf(path, sizeof(path), "%s/file", deep);
	assert_int_equal(mkdir(deep, 0700), 0);
	(void)close(open(path, O_CREAT | O_RDWR, 0600));
	for (size_t i = 0; i < 3; i++) {
		struct users_files files = {0};
		pid_t pid = stranger(ways[i].use, path);
		AUTO(fd) int fd = open(dir, O_RDONLY | O_DIRECTORY);

		assert_int_equal(users_files_add_tree(&files, fd, NULL), 0);
		assert_int_equal(users_find(&files, &users), 0);
		assert_int_equal(users.n, 1);
		assert_int_equal(users.list[0].pid, pid);
		assert_int_equal(users.list[0].how, ways[i].how);
		users_files_cleanup(&files);
		/* The same, but it is said not to look there. */
		assert_int_equal(users_files_add_tree(&files, fd, "deep"), 0);
		assert_int_equal(users_find(&files, &users), 0);
		assert_int_equal(users.n, 0);
		users_files_cleanup(&files);
		(void)kill(pid, SIGKILL);
	}
	(void)unlink(path);
	(void)rmdir(deep);
	(void)rmdir(dir);
}

static void ourselves_and_our_children_are_no_users(void **state)
{
	char path[] = "/tmp/users-XXXXXX";
	AUTO(fd) int fd = mkstemp(path);
	struct users_files files = {0};
	static struct users users;
	pid_t child = fork();

	if (child == 0)
		for (;;)
			(void)pause();
	assert_int_equal(users_files_add(&files, AT_FDCWD, path), 0);
	assert_int_equal(files.n, 1);
	assert_int_equal(users_find(&files, &users), 0);
	assert_int_equal(users.n, 0);
	users_files_cleanup(&files);
	(void)kill(child, SIGKILL);
	(void)waitpid(child, NULL, 0);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_of_maps_names_a_file),
		cmocka_unit_test(a_line_of_maps_without_a_file_is_none),
		cmocka_unit_test(a_parent_is_found_behind_any_name),
		cmocka_unit_test(many_are_counted_and_some_are_named),
		cmocka_unit_test(each_way_to_use_a_file_is_found),
		cmocka_unit_test(ourselves_and_our_children_are_no_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
