#include "ltx/index.h"

size_t ltx_index_put_varint(uint64_t value, uint8_t ret[LTX_VARINT_MAX])
{
	size_t size = 0;

	for (; value >= 0x80; value >>= 7)
		ret[size++] = (uint8_t)(value | 0x80);
	ret[size++] = (uint8_t)value;
	return size;
}

size_t ltx_index_put_entry(uint32_t pgno, uint64_t offset, uint64_t length,
			   uint8_t ret[LTX_INDEX_ENTRY_MAX])
{
	size_t size = ltx_index_put_varint(pgno, ret);

	size += ltx_index_put_varint(offset, ret + size);
	size += ltx_index_put_varint(length, ret + size);
	return size;
}

size_t ltx_index_get_varint(const uint8_t *data, uint64_t *ret)
{
	uint64_t value = 0;
	size_t size = 0;

	do
		value |= (uint64_t)(data[size] & 0x7f) << (7 * size);
	while (data[size++] & 0x80);
	*ret = value;
	return size;
}
