"""The engines: the connections to them, which there are, what they serve, and how they are.

client          asks an engine: over an idle connection or a new one, once more where that is safe
connection      one connection, one request after the other
answer          one answer, read from its bytes
pool            the idle connections of one engine
dial            makes a connection: TCP, TLS, a Unix socket
address         what an engine's URL says
request_writer  a request's head
inflate         bodies that were compressed unasked
endpoints       one deployment as it is known now
models          which models there are, and who serves them
discovery       the addresses behind a name
health, refresh what engines say of themselves, again and again
breaker, pause  whether an engine may be asked
"""
