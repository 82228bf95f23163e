"""What goes wrong with engines, clients, Redis, processes and clocks, a row each; after each row nothing is left over.

`engine_faults` is what engines do wrong. `scenario` is a gateway in the test's own process, whose inner state is looked
at. `gateway_process` is a gateway as users start it, whose memory and handles are looked at. The clients, which can
stop, read slowly and vanish, are in `tests.support.raw_client`.
"""
