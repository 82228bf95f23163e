"""Pointsman's gateway. The life of a request, step by step; each file says which step it is.

1.  `app` routes the path to its handler.
2.  `account` opens the RequestContext, the one account of the request, and closes it whatever happens.
    b, c: the `guard` sees by `auth` who asks (`keys`), and by `limits` whether that key may ask now.
3.  `api/` reads the body at the `door`, and keeps an eye on the client from then on.
4.  `pipeline` leads the call through the steps that follow.
5.  `parse` makes a checked Call of the bytes.
6b. `cached` plays again what is kept, and shares what is in flight (`cache/`).
7a. `admission` gives out places, and keeps a queue for them.
7b. `routing/` says which deployments may answer, and in which order; the `catalog` knows what they serve.
7c. `attempts` asks one after the other, as `retry` and each deployment's `breaker` allow.
8.  `engine` asks one of them in its dialect (`backends`), over the connection of `upstream`.
9.  `stream` writes the client's events.
10. `observe/` counts, traces and logs the RequestContext.

Beside the path: `watch` asks the engines how they are and ends what takes too long, `discovery` looks up their names,
`watched` reads files again that have changed, `drain` ends a worker in order, and `services` holds all of them.
Law: this package imports `backends`, never the other way round.
"""
