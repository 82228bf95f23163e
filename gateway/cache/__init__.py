"""Answered once. What the cache keeps, where, and under which key; a fault of any of it is a miss.

`key` (pure) says which calls may be cached and which are the same; `control` what a client asks of the cache.
`entry` is a stored answer, whole or as a stream (`backends.convert`), `packed` how it is written down.
`store` puts together two tiers: `memory`, this process's own, and `redis`, which all gateways share.
`single_flight` lets identical requests in flight share one upstream answer; `lease` does so across gateways.
`url` (pure) reads where a Redis is, `connect` makes its client; `commands` are `pointsman cache stats` and `purge`.
"""
