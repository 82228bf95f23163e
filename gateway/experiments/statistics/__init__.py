"""What an experiment's sums say, at any time: a file for each question, each a function of sums that only grow.

The sums (`MeanSums`, `Histogram`, `Split`, `Divergences`, ...) are whole numbers, so that those of two workers, or of
two gateways, added in any order are the very sums that one alone would have made. A real value is kept in
ten-thousandths (`scaled`), and 64 bits hold the squares of 10^9 of them.

Intervals and e-values may be looked at after every sample: the error rate alpha holds for all looks together, and a
rule that stops as soon as it sees what it waits for keeps it. What is asked, and where it is answered:

- `sample_ratio` (M1): was the traffic split as planned?
- `events` (M2): errors, late first tokens, clients that left: how much more often in the treatment?
- `means` (M3): times, as the ratio of geometric means: of requests, of sticky buckets, of pairs; `drift`: in queues.
- `quantiles` (M4): the same of p50, p95, p99, failures counted as endless.
- `paired` (M5, P3): a score of one request in both arms: a coin, and its mean.
- `divergence` (P1, P2), `likelihood` (P4), `tool_calls` (P5): do the engines answer alike?
- `comparable`: may latencies be compared at all?
- `verdict`: what to say of it; `parity`: the same of answers.

Estimates are of the treatment over the control, as the logarithm of a ratio: above 0 is more, which is worse.
"""
