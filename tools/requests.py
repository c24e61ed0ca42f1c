"""Parsing etcdctl's words: keys and range ends, lease ids, sort orders. Pure; raises ``UsageError``."""

from __future__ import annotations

from kvstore.model import FROM_KEY, SortOrder, SortTarget, prefix_end

from .usage import UsageError

SORT_ORDERS = {"ASCEND": SortOrder.ASCEND, "DESCEND": SortOrder.DESCEND}
SORT_TARGETS = {
    "KEY": SortTarget.KEY,
    "VERSION": SortTarget.VERSION,
    "CREATE": SortTarget.CREATE,
    "MODIFY": SortTarget.MOD,
    "VALUE": SortTarget.VALUE,
}


def key_and_end(
    key: bytes, range_end: bytes | None, *, prefix: bool = False, from_key: bool = False
) -> tuple[bytes, bytes]:
    """(key, range_end) of a request. An empty key with ``prefix`` or ``from_key`` means every key."""
    if (range_end is not None) + prefix + from_key > 1:
        raise UsageError("RANGE_END, --prefix and --from-key exclude each other")
    if prefix:
        return (key, prefix_end(key)) if key else (FROM_KEY, FROM_KEY)
    if from_key:
        return key or FROM_KEY, FROM_KEY
    return key, range_end or b""


def lease_id(text: str) -> int:
    """A lease's id as etcdctl writes it: hexadecimal, of 64 bits."""
    try:
        number = int(text, 16)
    except ValueError:
        raise UsageError(f"not a lease id (hexadecimal): {text!r}") from None
    if not -(1 << 63) <= number < 1 << 64:
        raise UsageError(f"not a lease id (more than 64 bits): {text!r}")
    return number - (1 << 64) if number >= 1 << 63 else number


def sort_order(order: str, sort_by: str) -> SortOrder:
    """The sort order: ascending if only the target is given."""
    if not order:
        return SortOrder.ASCEND if sort_by else SortOrder.NONE
    try:
        return SORT_ORDERS[order.upper()]
    except KeyError:
        raise UsageError(f"bad sort order {order!r}: {' or '.join(SORT_ORDERS)}") from None


def sort_target(sort_by: str) -> SortTarget:
    try:
        return SORT_TARGETS[sort_by.upper() or "KEY"]
    except KeyError:
        raise UsageError(f"bad sort target {sort_by!r}: {', '.join(SORT_TARGETS)}") from None
