"""etcd's messages, in one place: those of its API, and those in its log and its files.

    table       names, numbers and types of all of them
    messages    their classes, for the API                    (migrations.etcd.messages: the same table, for files)
    requests    message <-> request of ``kvstore.model``
    responses   response of ``kvstore.model`` -> message, encoded by hand
    sizes       how many bytes a request takes, without making its message
    json        message <-> JSON, as the gateway and as etcdctl spell it
    status      error of ``kvstore.errors`` -> the code and text that etcd answers with

It builds on ``kvstore.model`` and knows no store. ``import kvstore`` loads none of it: protobuf takes longer to load
than everything else.
"""
