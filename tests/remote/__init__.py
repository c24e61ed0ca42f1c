"""A store elsewhere: the client, and the engine over it."""
