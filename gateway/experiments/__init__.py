"""Experiments: two sets of deployments of one model, the control and the treatment, compared on live traffic."""
