/* Frames of HTTP/2, as http2/frames.py has them: a unary call is two that come together, and three that go out together.

       request   HEADERS (END_HEADERS)  DATA (END_STREAM)
       answer    HEADERS (END_HEADERS)  DATA  HEADERS (END_HEADERS, END_STREAM)

       length 3 | kind 1 | flags 1 | stream id 4 | payload

   and in DATA: 0 | length 4 | message, where it is gRPC's. */

#include "native.h"

enum { HEAD_BYTES = 9, PREFIX_BYTES = 5, DATA = 0, HEADERS = 1, END_STREAM = 1, END_HEADERS = 4 };

#define LENGTH_MAX 0xffffff
#define STREAM_ID_MAX 0x7fffffff

struct head {
    Py_ssize_t length;
    uint8_t kind, flags;
    uint32_t stream_id;
};

/* The head of a frame at ``at``. False if it, or its payload, goes beyond ``end``, or the payload is too long. */
static int take_head(const uint8_t *at, const uint8_t *end, uint64_t length_max, struct head *head) {
    if (end - at < HEAD_BYTES) return 0;
    head->length = (Py_ssize_t)at[0] << 16 | (Py_ssize_t)at[1] << 8 | at[2];
    head->kind = at[3], head->flags = at[4];
    head->stream_id = (uint32_t)at[5] << 24 | (uint32_t)at[6] << 16 | (uint32_t)at[7] << 8 | at[8];
    return (uint64_t)head->length <= length_max && head->length <= end - at - HEAD_BYTES;
}

static uint8_t *put_frame(uint8_t *at, uint8_t kind, uint8_t flags, uint32_t stream_id, PyObject *payload) {
    Py_ssize_t length = PyBytes_GET_SIZE(payload);
    *at++ = (uint8_t)(length >> 16), *at++ = (uint8_t)(length >> 8), *at++ = (uint8_t)length;
    *at++ = kind, *at++ = flags;
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(stream_id >> shift);
    memcpy(at, bytes_of(payload), (size_t)length);
    return at + length;
}

/* What a frame has to be. */
struct usual {
    uint8_t kind, flags;
};
static const struct usual request[] = {{HEADERS, END_HEADERS}, {DATA, END_STREAM}};
static const struct usual answer[] = {{HEADERS, END_HEADERS}, {DATA, 0}, {HEADERS, END_HEADERS | END_STREAM}};
#define FRAMES(usual) ((int)(sizeof usual / sizeof *usual))

/* The usual frames, all of one stream, from (data, at, size_max): (stream id, their payloads, end). None if there are
   others. */
static PyObject *taken(const struct usual *usual, int frames, ARGUMENTS) {
    uint64_t start, size_max;
    const uint8_t *at, *end;
    struct head head, first = {0};
    PyObject *made;
    if (!ARE_POSITIONAL(3) || !PyBytes_CheckExact(arguments[0]) || !take_size(arguments[1], &start) ||
        !take_size(arguments[2], &size_max) || start > (uint64_t)PyBytes_GET_SIZE(arguments[0]))
        return ASK_PYTHON;
    at = bytes_of(arguments[0]) + start;
    end = bytes_of(arguments[0]) + PyBytes_GET_SIZE(arguments[0]);
    for (int frame = 0; frame < frames; frame++) {
        if (!take_head(at, end, size_max, &head) || head.kind != usual[frame].kind || head.flags != usual[frame].flags)
            return Py_NewRef(Py_None);
        if (!frame) first = head;
        if (head.stream_id != first.stream_id || !head.stream_id || head.stream_id > STREAM_ID_MAX)
            return Py_NewRef(Py_None);
        at += HEAD_BYTES + head.length;
    }
    made = PyTuple_New(frames + 2);
    if (made == NULL) return NULL;
    if (!fill(made, frames + 1, PyLong_FromSsize_t(at - bytes_of(arguments[0]))) ||
        !fill(made, 0, PyLong_FromUnsignedLong(first.stream_id))) {
        Py_DECREF(made);
        return NULL;
    }
    at = bytes_of(arguments[0]) + start;
    for (int frame = 0; frame < frames; frame++) {
        take_head(at, end, size_max, &head);
        if (!fill(made, 1 + frame, bytes_from(at + HEAD_BYTES, head.length))) {
            Py_DECREF(made);
            return NULL;
        }
        at += HEAD_BYTES + head.length;
    }
    return made;
}

/* The usual frames of (stream id, their payloads). */
static PyObject *put_together(const struct usual *usual, int frames, ARGUMENTS) {
    uint64_t stream_id;
    Py_ssize_t size = 0;
    PyObject *made;
    uint8_t *at;
    if (!ARE_POSITIONAL(1 + frames) || !take_size(arguments[0], &stream_id) || stream_id > STREAM_ID_MAX)
        return ASK_PYTHON;
    for (int frame = 1; frame <= frames; frame++) {
        if (!PyBytes_CheckExact(arguments[frame]) || PyBytes_GET_SIZE(arguments[frame]) > LENGTH_MAX) return ASK_PYTHON;
        size += HEAD_BYTES + PyBytes_GET_SIZE(arguments[frame]);
    }
    made = bytes_from(NULL, size);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    for (int frame = 0; frame < frames; frame++)
        at = put_frame(at, usual[frame].kind, usual[frame].flags, (uint32_t)stream_id, arguments[1 + frame]);
    return made;
}

#define THE_ARGUMENTS python, arguments, count, names

/* whole_request(data, at, size_max): (stream id, block, payload, end), or None. */
static PyObject *whole_request(ARGUMENTS) {
    return taken(request, FRAMES(request), THE_ARGUMENTS);
}

/* whole_answer(data, at, size_max): (stream id, block, payload, trailers, end), or None. */
static PyObject *whole_answer(ARGUMENTS) {
    return taken(answer, FRAMES(answer), THE_ARGUMENTS);
}

/* request_frames(stream_id, block, data). */
static PyObject *request_frames(ARGUMENTS) {
    return put_together(request, FRAMES(request), THE_ARGUMENTS);
}

/* answer_frames(stream_id, head, message, trailers). */
static PyObject *answer_frames(ARGUMENTS) {
    return put_together(answer, FRAMES(answer), THE_ARGUMENTS);
}

/* lone_message(payload, limit_bytes): the message in DATA that is one message of gRPC (grpc.py), or None. */
static PyObject *lone_message(ARGUMENTS) {
    uint64_t limit;
    const uint8_t *at;
    Py_ssize_t size;
    if (!ARE_POSITIONAL(2) || !PyBytes_CheckExact(arguments[0]) || !take_size(arguments[1], &limit) ||
        PyBytes_GET_SIZE(arguments[0]) > UINT32_MAX)
        return ASK_PYTHON;
    at = bytes_of(arguments[0]);
    size = PyBytes_GET_SIZE(arguments[0]) - PREFIX_BYTES;
    if (size < 0 || (uint64_t)size > limit || at[0] ||
        ((uint64_t)at[1] << 24 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 8 | at[4]) != (uint64_t)size)
        return Py_NewRef(Py_None);
    return bytes_from(at + PREFIX_BYTES, size);
}

/* framed(message): the reverse. */
static PyObject *framed(ARGUMENTS) {
    Py_ssize_t size;
    PyObject *made;
    uint8_t *at;
    if (!ARE_POSITIONAL(1) || !PyBytes_CheckExact(arguments[0]) || PyBytes_GET_SIZE(arguments[0]) > UINT32_MAX)
        return ASK_PYTHON;
    size = PyBytes_GET_SIZE(arguments[0]);
    made = bytes_from(NULL, PREFIX_BYTES + size);
    if (made == NULL) return NULL;
    at = (uint8_t *)PyBytes_AS_STRING(made);
    *at++ = 0;
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(size >> shift);
    memcpy(at, bytes_of(arguments[0]), (size_t)size);
    return made;
}

PyMethodDef frame_functions[] = {
    FUNCTION(whole_request), FUNCTION(whole_answer), FUNCTION(request_frames), FUNCTION(answer_frames),
    FUNCTION(lone_message),  FUNCTION(framed),       END_OF_FUNCTIONS,
};
