"""A store behind other libraries' interfaces, for programs that come from there. Built on the public faces alone.

cache         a cache as diskcache has it, which is a mapping as shelve has it
conversion    what a shelf or a diskcache holds, into a cache
key_value     a store of py-key-value-aio (the extra ``adapters``)
"""
