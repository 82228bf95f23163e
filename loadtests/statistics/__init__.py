"""The proof of `gateway.experiments.statistics` by simulation: what is promised, in many runs, looked at all the time.

A simulation makes traffic (`traffic`, `queueing`) for many runs at once, and looks at it after every sample (`looks`):
in numpy, by the same formulas. The functions of the gateway itself are asked at the look that decides each run, where
their figures must be the same. Of the runs that went wrong there may be as many as alpha and chance allow (`finding`).
Beside them stands, where there is one, how often the plain method goes wrong on the same traffic: the one that forgets
what the simulation is about. It has to fail, or the simulation would prove nothing.

`python -m loadtests.statistics` runs each of `simulations` 1,000 times; the test suite runs each of them 100 times.
"""
