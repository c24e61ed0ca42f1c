/* CRC-32C (Castagnoli), as the package crc32c computes it. */

#ifndef KVSTORE_CRC32C_H
#define KVSTORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what had the checksum ``value``, with ``size`` more bytes. */
uint32_t crc32c(uint32_t value, const uint8_t *at, size_t size);

#endif
