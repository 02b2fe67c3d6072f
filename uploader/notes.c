#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#include "uploader/notes.h"

static struct note *notes_find(struct notes *notes, const char *db)
{
	for (size_t i = 0; i < notes->n; i++)
		if (strcmp(notes->items[i].db, db) == 0)
			return &notes->items[i];
	return NULL;
}

int notes_add(struct notes *notes, const struct note *note)
{
	struct note *other = notes_find(notes, note->db);

	if (other) {
		if (other->entry.txid <= note->entry.txid)
			other->entry = note->entry;
		free(note->db);
		return 0;
	}
	if (notes->n == notes->capacity) {
		size_t more = notes->capacity ? 2 * notes->capacity : 16;
		void *grown = reallocarray(notes->items, more,
					   sizeof(*notes->items));

		if (!grown)
			return error_set(-ENOMEM, "no memory for the catalog");
		notes->items = grown;
		notes->capacity = more;
	}
	notes->items[notes->n++] = *note;
	return 0;
}

void notes_put_back(struct notes *notes, struct notes *older)
{
	for (size_t i = 0; i < notes->n; i++)
		if (notes_add(older, &notes->items[i]) < 0)
			free(notes->items[i].db);
	free(notes->items);
	*notes = *older;
	*older = (struct notes){ 0 };
}

void notes_clear(struct notes *notes)
{
	for (size_t i = 0; i < notes->n; i++)
		free(notes->items[i].db);
	free(notes->items);
	*notes = (struct notes){ 0 };
}
