"""Auth: users, roles, tokens, and whether they count.

What changes users or roles is a logged request that changes rows (``kvstore.auth``); who may ask for it is looked at
when it comes, and again when it is planned. A password is hashed before that, so no log has it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from kvstore.auth.changes import changed
from kvstore.auth.permissions import READWRITE
from kvstore.auth.store import ROOT, Refused, Rules
from kvstore.errors import Code
from kvstore.etcdpb import logged
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import FROM_KEY, RowsRequest
from kvstore.network.call import Call, Failed, Kind, Method, Running, Serve, decoded
from kvstore.network.dialect import V3_5
from kvstore.network.endpoint import Endpoint
from kvstore.network.tokens import PASSWORD_BYTES_MAX, Tokens

SERVICE = "etcdserverpb.Auth"

# --- changes -------------------------------------------------------------------------------------


def _change(name: str, prepare: Callable[[Endpoint, Any], Coroutine[Any, Any, None]] | None = None) -> Serve:
    """A method that changes users or roles. ``prepare`` makes the request into what may be logged."""
    asked_for, kept = (getattr(package, name) for package in (pb, logged.etcdserverpb))

    async def prepared(endpoint: Endpoint, call: Call, request: Any) -> None:
        assert prepare is not None
        await prepare(endpoint, request)
        _ask(endpoint, call, request)

    def serve(endpoint: Endpoint, call: Call, message: bytes) -> Running | None:
        decoded(asked_for, message)  # which is where names have to be text
        request = decoded(kept, message)
        _check(endpoint, request)
        if prepare is not None:
            return endpoint.spawn(call, partial(prepared, endpoint, call, request))
        _ask(endpoint, call, request)
        return None

    return serve


def _check(endpoint: Endpoint, request: Any) -> None:
    """Refuse a permission that is none. (3.4 takes one of an empty range; without one it crashes.)"""
    if request.DESCRIPTOR.name != "AuthRoleGrantPermissionRequest":
        return
    if not request.HasField("perm"):
        raise Refused("permission not given")
    key, range_end = request.perm.key, request.perm.range_end
    if endpoint.dialect >= V3_5 and not (key and (range_end in (b"", FROM_KEY) or key < range_end)):
        raise Refused("invalid auth management")


def _ask(endpoint: Endpoint, call: Call, request: Any) -> None:
    """Have the change made. What follows from it for clients is so before the answer goes out."""
    asked = RowsRequest(lambda rows: (changed(Rules(rows), request), None))
    kind = request.DESCRIPTOR.name
    endpoint.ask_for(endpoint.guarded(call, asked, kind), partial(_changed, endpoint, call, kind, request))


def _changed(
    endpoint: Endpoint, call: Call, kind: str, request: Any, _response: Any, error: BaseException | None
) -> None:
    if error is not None:
        endpoint.fail(call, error)
        return

    def forget(tokens: Tokens) -> None:
        if kind in ("AuthUserDeleteRequest", "AuthUserChangePasswordRequest"):
            tokens.forget_user(request.name)
        elif kind == "AuthDisableRequest":
            tokens.forget()

    endpoint.users_changed(forget)
    _answer(endpoint, call)


def _answer(endpoint: Endpoint, call: Call, response: Any = None) -> None:
    body = b"" if response is None else response.SerializeToString()
    call.answer(endpoint.header.at(endpoint.engine.revision) + body)


async def _hash(endpoint: Endpoint, request: Any) -> None:
    """Replace the password by what is kept of it."""
    password, request.password = request.password, b""
    if len(password) > PASSWORD_BYTES_MAX and endpoint.dialect >= V3_5:
        raise Failed(Code.UNKNOWN, f"bcrypt: password length exceeds {PASSWORD_BYTES_MAX} bytes")
    if getattr(request, "options", None) is None or not request.options.no_password:
        request.hashedPassword = base64.b64encode(await endpoint.users.hashed(password))


# --- tokens --------------------------------------------------------------------------------------


def authenticate(endpoint: Endpoint, call: Call, message: bytes) -> Running:
    request = decoded(pb.AuthenticateRequest, message)
    endpoint.users.admit_login(call.peer)
    return endpoint.spawn(call, partial(_authenticate, endpoint, call, request))


async def _authenticate(endpoint: Endpoint, call: Call, request: Any) -> None:
    token = await endpoint.users.log_in(request.name.encode(), request.password.encode())
    _answer(endpoint, call, pb.AuthenticateResponse(token=token))


# --- what there is -------------------------------------------------------------------------------


def auth_status(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.AuthStatusRequest, message)
    if endpoint.dialect < V3_5:
        raise Failed(Code.UNIMPLEMENTED, f"unknown method AuthStatus for service {SERVICE}")
    rules = endpoint.users.rules
    _answer(endpoint, call, pb.AuthStatusResponse(enabled=rules.enabled, authRevision=rules.revision))


def user_get(endpoint: Endpoint, call: Call, message: bytes) -> None:
    user = endpoint.users.rules.user(decoded(pb.AuthUserGetRequest, message).name.encode())
    if user is None:
        raise Refused("user name not found")
    _answer(endpoint, call, pb.AuthUserGetResponse(roles=map(_text, user.roles)))


def user_list(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.AuthUserListRequest, message)
    _answer(endpoint, call, pb.AuthUserListResponse(users=map(_text, endpoint.users.rules.users())))


def role_get(endpoint: Endpoint, call: Call, message: bytes) -> None:
    """The role ``root`` has no permissions of its own; since 3.5 it is shown with all there are."""
    role = endpoint.users.rules.role(decoded(pb.AuthRoleGetRequest, message).role.encode())
    if role is None:
        raise Refused("role name not found")
    response = pb.AuthRoleGetResponse()
    if role.name == ROOT and endpoint.dialect >= V3_5:
        response.perm.add(permType=READWRITE, range_end=FROM_KEY)
    for each in role.keyPermission:
        response.perm.add(permType=each.permType, key=each.key, range_end=each.range_end)
    _answer(endpoint, call, response)


def role_list(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.AuthRoleListRequest, message)
    _answer(endpoint, call, pb.AuthRoleListResponse(roles=map(_text, endpoint.users.rules.roles())))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _methods(**serves: Serve | None) -> list[Method]:
    """By name; the messages of most have ``Auth`` before it."""
    found = []
    for name, serve in serves.items():
        kind = name if name.startswith("Auth") else f"Auth{name}"
        request, response = (getattr(pb, f"{kind}{end}") for end in ("Request", "Response"))
        method = serve or _change(f"{kind}Request")
        found.append(Method(SERVICE, name, Kind.UNARY, method, request, response))
    return found


METHODS = _methods(
    AuthEnable=None,
    AuthDisable=None,
    AuthStatus=auth_status,
    Authenticate=authenticate,
    UserAdd=_change("AuthUserAddRequest", _hash),
    UserGet=user_get,
    UserList=user_list,
    UserDelete=None,
    UserChangePassword=_change("AuthUserChangePasswordRequest", _hash),
    UserGrantRole=None,
    UserRevokeRole=None,
    RoleAdd=None,
    RoleGet=role_get,
    RoleList=role_list,
    RoleDelete=None,
    RoleGrantPermission=None,
    RoleRevokePermission=None,
)
