"""What there is to see from outside. All of it reads the same RequestContext, when the request has ended.

`metrics` counts, `logs` writes a line; `labels` has the few words that both use for what was done and how it ended.
`tgi_names` counts under TGI's names, if asked for; `saturation` says how full each model is.
`live` are the figures of this moment, `board` where several workers lay them side by side.
"""
