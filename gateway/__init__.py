"""Pointsman's gateway. The life of a request, step by step, and the file where each step is.

1.  `server.client_connection` reads it from the client's connection, `server.exchange` hands it to Litestar, and `app`
    routes its path to its handler.
2.  `http.lifecycle` opens the RequestContext, the one account of the request, and closes it whatever happens.
3.  `access.guard` checks the API key (`access.auth`, `access.keys`) and its limits (`access.limits`).
4.  A surface of `api/` reads the body (`http.body`), makes a checked Call of it (`proxy.parse`), and hands its `Work`
    to the pipeline. From then on a client that leaves ends the request.
5.  `proxy.pipeline` leads the work through the steps that follow, the same for every surface; `proxy.surfaces` says
    which of them apply to which. `access.models` finds the model and sees that the key is good for it, and
    `experiments.step` draws the arm, if the model has an experiment.
6.  `cache.middleware` answers from the cache, or shares the answer to an identical request in flight.
7.  `routing` says which deployments may answer, and in which order; `upstream.models` knows what they serve.
8.  `proxy.dispatch` asks one after the other, as `proxy.admission`, `proxy.retry` and each circuit breaker allow; whose
    fault a failure is, `proxy.verdict` says.
9.  `proxy.generation` asks one of them in its dialect (`backends`), by a `proxy.engine_client` over a connection of
    `upstream.client`.
10. `http.client` writes the answer, `http.sse` the events of a stream.
11. `http.lifecycle` gives back the permits, debits the tokens and tells of an error.
12. `observe/` counts, traces and logs the context.

Beside the path: `http.deadlines` ends what takes too long, `upstream.health` asks the engines how they are,
`upstream.discovery` looks up their names, `server/` runs all of it and reads changed files, and `services` holds the
collaborators. What goes on beside a request, on its behalf, is a `proxy.subrequest`; an experiment's shadow
(`experiments.shadow`) begins when the client has its answer, and `experiments.keeper` tells the record.

Laws, each kept by `tests/test_layering.py`: `cli` imports `gateway`, and `gateway` imports `backends`, never the other
way round; the outside world lives in few named files.
"""
