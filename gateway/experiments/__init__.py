"""Experiments: two sets of a model's deployments, the control and the treatment, compared on live traffic.

    unit         what stays in one arm, as a number: a hash of a conversation, a session, a key, or the request
    assignment   a request's place in an experiment: its arm, or why it has none
    definition   what makes an experiment the same one, and which share is the treatment's
    live         an experiment that runs in this worker: its arms, its share, what it draws
    running      all that run in this worker
    step         the step of `proxy.pipeline` that assigns a request
    observe      what a request that has ended says of its arm
    tally        what a worker has counted since it last told the record
    store/       where the record is kept: SQLite for one host, Redis for several
    notes        what is noted there beside the numbers
    keeper       the background task that tells the record, and follows what is noted there
    versions     which version each engine says that it is
    record       what has been counted by all workers, as whole numbers that only grow
    shadow/      the same request asked of both arms beside the client's
    answers/     two answers to one request, compared
    statistics/  what the numbers say
    judgement    what a record says: each metric, the answers, and the verdict
    report       all of it for people and scripts; `reading` has it from a store, `figures` for Prometheus

Nothing here imports a surface (`gateway.api`); what a surface has to tell is in `proxy.pipeline.Work`.
"""
