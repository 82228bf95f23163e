"""What goes wrong with engines, clients, Redis, processes and clocks, a row each; after each row nothing is left over.

`strikes` is what engines do wrong, `wire` a client that can stop, crawl and vanish, `ground` a gateway in the test's
own process whose inner state is looked at, `process` a gateway as users start it, whose memory and handles are.
"""
