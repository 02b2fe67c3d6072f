#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/*
 * Runs a fuzz target without libFuzzer over each file below the paths given,
 * as a plain test.  A path that is not there is an error, because a test of
 * nothing passes; an empty argument is none.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned files_run;

static void die(const char *what, const char *path)
{
	(void)fprintf(stderr, "%s '%s': %s\n", what, path, strerror(errno));
	exit(1);
}

static void run_file(const char *path, size_t size)
{
	FILE *file = fopen(path, "rb");
	/* Exactly as long as the input: reading further is then noticed. */
	uint8_t *data = malloc(size ? size : 1);

	if (!file || !data || fread(data, 1, size, file) != size)
		die("reading", path);
	(void)fclose(file);
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
	files_run++;
}

static void run_path(const char *path);

static void run_directory(const char *path)
{
	struct dirent **entries;
	int n = scandir(path, &entries, NULL, alphasort);

	if (n < 0)
		die("listing", path);
	for (int i = 0; i < n; i++) {
		char below[4096];

		(void)snprintf(below, sizeof(below), "%s/%s", path,
			       entries[i]->d_name);
		if (strcmp(entries[i]->d_name, ".") != 0 &&
		    strcmp(entries[i]->d_name, "..") != 0)
			run_path(below);
		free(entries[i]);
	}
	free(entries);
}

static void run_path(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		die("looking at", path);
	if (S_ISDIR(st.st_mode))
		run_directory(path);
	else
		run_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (argv[i][0] != '\0')
			run_path(argv[i]);
	printf("%u inputs\n", files_run);
	return files_run ? 0 : 1;
}
