"""What bytes mean to people, for ``kvstore inspect`` and for the live page alike.

values      what a value is: a Kubernetes object, JSON, text, a protobuf message, bytes
            (kubernetes, with kubernetes_types; generic_protobuf; yaml_text)
readable    a key as text
"""
