"""Users and roles: who may do what with the keys.

    rows of meta              value                                                    (the very rows of an etcd's file)
    etcd/auth/authEnabled     one byte: 1 if users count
    etcd/auth/authRevision    u64 big-endian: grows with each change of users and roles
    etcd/authUsers/<name>     authpb.User
    etcd/authRoles/<name>     authpb.Role

    store         the rules that the rows say, and whom they let do what
    permissions   spans of keys: what a role allows, what a request touches
    changes       the rows that a change of users and roles puts

All of this looks at rows and at requests, and at nothing else; who is asking is for the network to find out. A store
that is used as a library has no users: whoever opens it may do everything.
"""
