#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/columns.h"

static int make_room(struct columns *t)
{
	size_t capacity = t->capacity ? t->capacity * 2 : 64;
	char **cells;

	if (t->n < t->capacity)
		return 0;
	cells = reallocarray(t->cells, capacity, sizeof(*cells));
	if (!cells)
		return -ENOMEM;
	t->cells = cells;
	t->capacity = capacity;
	return 0;
}

void columns_cell(struct columns *t, const char *fmt, ...)
{
	char *text;
	va_list args;
	int n;

	if (t->failed || make_room(t) < 0) {
		t->failed = true;
		return;
	}
	va_start(args, fmt);
	n = vasprintf(&text, fmt, args);
	va_end(args);
	if (n < 0) {
		t->failed = true;
		return;
	}
	for (char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = '?';
	t->cells[t->n++] = text;
}

static bool is_right(const char *heading)
{
	return heading[strlen(heading) - 1] == '>';
}

/* Characters, not bytes: all but the continuations of UTF-8. */
static size_t width_of(const char *text, size_t size)
{
	size_t width = 0;

	for (size_t i = 0; i < size && text[i]; i++)
		width += ((unsigned char)text[i] & 0xc0) != 0x80;
	return width;
}

static size_t heading_size(const char *heading)
{
	return strlen(heading) - is_right(heading);
}

static size_t column_width(const struct columns *t, size_t column)
{
	size_t width = heading_size(t->headings[column]);

	for (size_t i = column; i < t->n; i += t->n_columns) {
		size_t w = width_of(t->cells[i], SIZE_MAX);

		width = w > width ? w : width;
	}
	return width;
}

/* The last column is not filled up: no line ends with blanks. */
static void print_cell(const struct columns *t, size_t column, size_t width,
		       const char *text, size_t size, FILE *out)
{
	int fill = (int)(width - width_of(text, size));
	bool last = column + 1 == t->n_columns;
	bool right = is_right(t->headings[column]);

	(void)fprintf(out, "%*s%.*s%*s%s", right ? fill : 0, "", (int)size,
		      text, right || last ? 0 : fill, "", last ? "\n" : "  ");
}

int columns_print(const struct columns *t, FILE *out)
{
	size_t widths[16];

	if (t->failed)
		return error_set(-ENOMEM, "out of memory for the table");
	for (size_t c = 0; c < t->n_columns; c++)
		widths[c] = column_width(t, c);
	for (size_t c = 0; c < t->n_columns; c++)
		print_cell(t, c, widths[c], t->headings[c],
			   heading_size(t->headings[c]), out);
	for (size_t i = 0; i < t->n; i++)
		print_cell(t, i % t->n_columns, widths[i % t->n_columns],
			   t->cells[i], strlen(t->cells[i]), out);
	return 0;
}

void columns_cleanup(struct columns *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
}
