"""Chats: messages to a prompt through the model's own template, and the reply taken apart.

`sandbox` runs templates of strangers in processes (`jinja_process` is what they run), `template`
keeps the text of messages apart from control tokens, `messages` checks what a caller passes,
`reply` holds what comes back.
"""

expected = True
"""Whether a model that is opened may be asked to chat; if not, no process is started early."""
