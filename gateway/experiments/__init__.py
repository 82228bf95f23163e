"""Experiments: two sets of a model's deployments, compared on live traffic.

    unit         what stays in one arm, as a number: a hash of a conversation, a session, a key, or the request
    assignment   a request's place in an experiment: its arm, or why it has none
    live         an experiment that runs in this worker: its arms, its share, what it draws
    step         the step of `proxy.pipeline` that assigns a request
    observe      what a request that has ended says of its arm
    tally        what a worker has counted since it last told the record
    record       what has been counted by all workers, as whole numbers that only grow
    store/       where the record is kept: SQLite for one host, Redis for several
    keeper       the background task that tells the record, and follows what other gateways say
    shadow/      the same request asked of both arms beside the client's, and the answers compared
    statistics/  what the numbers say
    report       all of it for people and scripts

Nothing here imports a surface (`gateway.api`); what a surface has to tell is in `proxy.pipeline.Work`.
"""
