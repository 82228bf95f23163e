"""Pointsman's gateway. The life of a request, step by step; each file says which step it is.

1.  `app` routes the path to its handler.
2.  `account` opens the Exchange, the one account of the request, and closes it whatever happens.
3.  `api/` reads the body at the `door`, and keeps an eye on the client from then on.
4.  `pipeline` leads the call through the steps that follow.
5.  `parse` makes a checked Call of the bytes.
7b. `routing` decides which deployments may answer, and in which order; the `catalog` knows what they serve.
8.  `engine` asks one of them in its dialect (`backends`), over the connection of `upstream`.
9.  `stream` writes the client's events.
10. The Exchange holds what there is to count.

Beside the path: `watch` asks the engines what they serve and ends what takes too long.
Law: this package imports `backends`, never the other way round.
"""
