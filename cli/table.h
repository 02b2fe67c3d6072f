#ifndef LITEBUCKET_CLI_TABLE_H
#define LITEBUCKET_CLI_TABLE_H

/*
 * A table for people: columns as wide as their widest cell.
 *
 *	AUTO(table) struct table t = TABLE("PATH", "SIZE>");
 *
 *	table_cell(&t, "%s", path);		// cell by cell, row by row
 *	table_cell(&t, "%s", size);
 *	...
 *	rc = table_print(&t, stdout);
 *
 * A heading that ends with ">" aligns its column to the right.  Control
 * characters in cells are shown as "?", so that a name cannot break a line.
 * The first failure to get memory is kept and returned by table_print().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

struct table {
	const char *const *headings;
	size_t columns;
	char **cells;
	size_t n, capacity;
	bool failed;
};

#define TABLE(...)                                                      \
	{                                                               \
		.headings = (const char *const[]){__VA_ARGS__},         \
		.columns = sizeof((const char *const[]){__VA_ARGS__}) / \
			   sizeof(char *),                              \
	}

void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
int table_print(const struct table *t, FILE *out);
void table_cleanup(struct table *t);

#endif
