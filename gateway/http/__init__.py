"""The client's side: a request's context and its end, bodies, answers, events, deadlines, errors."""
