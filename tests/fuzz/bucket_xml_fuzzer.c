/* Whatever a server sends as XML: read as a list and as an error document. */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "bucket/s3_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(s3_listing) struct s3_listing listing = { 0 };
	struct s3_problem problem;

	if (s3_xml_listing((const char *)data, size, &listing) == 0)
		for (size_t i = 0; i < listing.n; i++)
			if (!listing.entries[i].key)
				abort();
	(void)s3_xml_problem((const char *)data, size, &problem);
	return 0;
}
