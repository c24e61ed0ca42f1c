/* Varints, as wire.py has them: 7 bits a byte, the least significant first, 0x80 where more follow.

       300   ac 02        -1   ff ff ff ff ff ff ff ff ff 01 */

#ifndef KVSTORE_VARINT_H
#define KVSTORE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define VARINT_BYTES_MAX 10

static inline ptrdiff_t varint_bytes(uint64_t value) {
    ptrdiff_t size = 1;
    while (value >>= 7) size++;
    return size;
}

static inline uint8_t *put_varint(uint8_t *at, uint64_t value) {
    while (value > 0x7f) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

/* Where the varint at ``at`` ends. NULL if it is cut short or has more than 64 bits. */
static inline const uint8_t *take_varint(const uint8_t *at, const uint8_t *end, uint64_t *value) {
    uint64_t sum = 0;
    for (int shift = 0; at < end && shift < 64; shift += 7) {
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1) return NULL;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = sum;
            return at;
        }
    }
    return NULL;
}

#endif
