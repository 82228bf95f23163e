"""The commands, a file or a folder each. `gateway.__main__` reads their arguments; nothing else imports them."""
