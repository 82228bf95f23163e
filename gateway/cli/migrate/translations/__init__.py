"""The rows of the table that need thought: each is a function of a setting's value and the facts, and says why.

model       what the model is, and how it is loaded
limits      how long, how large and how many requests may be
machine     GPUs, their memory, and what is captured on them
server      where it listens, who may ask, what it tells, how it ends
variables   environment variables that are no flags of the launcher
unasked     what TGI does by itself and vLLM does not
"""
