#ifndef LITEBUCKET_CLI_COLUMNS_H
#define LITEBUCKET_CLI_COLUMNS_H

/*
 * A table for people: columns as wide as their widest cell.
 *
 *	AUTO(columns) struct columns t = COLUMNS("PATH", "SIZE>");
 *
 *	columns_cell(&t, "%s", path);		// cell by cell, row by row
 *	columns_cell(&t, "%s", size);
 *	...
 *	rc = columns_print(&t, stdout);
 *
 * A heading that ends with ">" aligns its column to the right.  Control
 * characters in cells are shown as "?", so that a name cannot break a line.
 * The first failure to get memory is kept and returned by columns_print().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

struct columns {
	const char *const *headings;
	size_t n_columns;
	char **cells;
	size_t n, capacity;
	bool failed;
};

#define COLUMNS(...)                                                      \
	{                                                                 \
		.headings = (const char *const[]){__VA_ARGS__},           \
		.n_columns = sizeof((const char *const[]){__VA_ARGS__}) / \
			     sizeof(char *),                              \
	}

void columns_cell(struct columns *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
int columns_print(const struct columns *t, FILE *out);
void columns_cleanup(struct columns *t);

#endif
