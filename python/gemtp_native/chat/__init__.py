"""Chats: renders messages as a prompt with the model's own template, and parses the reply.

`sandbox` runs untrusted templates in separate processes (with the code in `jinja_process`),
`known` renders templates whose text is known, `template` separates the text of messages from
control tokens, `messages` checks the caller's messages, `reply` holds the parsed reply.
"""

expected = True
"""Whether an opened model is expected to be used for chats; if not, no process is started early."""
