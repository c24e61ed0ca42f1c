/* CRC-32C three ways: with the instruction that x86 (SSE4.2) or ARM (CRC) has for it, where the processor that this runs
   on has it, and with a table everywhere.

       data   | b0 b1 ... b7 | b8 ... | ...        8 bytes at a time, then the rest one by one
       value  kept inverted while it is being computed

   The table is of one byte: it serves processors without the instruction, which are rare. */

#include "crc32c.h"

#include "native.h"

typedef uint32_t (*way)(uint32_t, const uint8_t *, size_t);

/* --- the table --- */

static uint32_t table[256];

static void fill_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
        table[byte] = value;
    }
}

static uint32_t by_table(uint32_t value, const uint8_t *at, size_t size) {
    if (!table[1]) fill_table();
    value = ~value;
    while (size--) value = value >> 8 ^ table[(value ^ *at++) & 0xff];
    return ~value;
}

/* --- the instruction --- */

#if defined(__x86_64__) && defined(__GNUC__)

#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t value, const uint8_t *at, size_t size) {
    uint64_t sum = ~value & 0xffffffffu, word;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        sum = _mm_crc32_u64(sum, word);
    }
    while (size--) sum = _mm_crc32_u8((uint32_t)sum, *at++);
    return ~(uint32_t)sum;
}

static int has_instruction(void) {
    return __builtin_cpu_supports("sse4.2");
}

#elif defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)

#include <arm_acle.h>
#include <sys/auxv.h>

#define HWCAP_CRC (1 << 7)

__attribute__((target("+crc"))) static uint32_t by_instruction(uint32_t value, const uint8_t *at, size_t size) {
    uint64_t word;
    value = ~value;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        value = __crc32cd(value, word);
    }
    while (size--) value = __crc32cb(value, *at++);
    return ~value;
}

static int has_instruction(void) {
    return (getauxval(AT_HWCAP) & HWCAP_CRC) != 0;
}

#else

#define by_instruction by_table

static int has_instruction(void) {
    return 0;
}

#endif

/* --- the choice --- */

static way chosen;

uint32_t crc32c(uint32_t value, const uint8_t *at, size_t size) {
    if (chosen == NULL) chosen = has_instruction() ? by_instruction : by_table;
    return chosen(value, at, size);
}

PyObject *crc32c_with(PyObject *Py_UNUSED(module), PyObject *arguments) {
    const char *name;
    PyObject *data;
    unsigned int value;
    way found;
    if (!PyArg_ParseTuple(arguments, "sSI", &name, &data, &value)) return NULL;
    found = strcmp(name, "table") == 0 ? by_table : strcmp(name, "chosen") == 0 ? crc32c : NULL;
    if (found == NULL) return PyErr_Format(PyExc_LookupError, "there is no way %s", name);
    return PyLong_FromUnsignedLong(found(value, bytes_of(data), (size_t)PyBytes_GET_SIZE(data)));
}
