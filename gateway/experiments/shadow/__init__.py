"""The same request asked of the treatment, and for a third of them of the control once more, beside the client's.

A client feels nothing of it: it begins when its answer is complete, is asked of an engine only where there is room at
once, is bounded in flight and by a budget, is never retried, never charged and never cached. What is left out for any
of that is counted with its reason.

    heard     the client's own answer, kept aside while it is sent
    call      what is asked beside: as a stream, with log probabilities where both arms are asked
    ask       one deployment asked, under an account of its own
    runner    who is asked, when, and in which order
    bounds    how much at most
    weigh     the answers compared (P1, P2, P3, P5), and counted
    examples  what is kept of answers that differ
"""
