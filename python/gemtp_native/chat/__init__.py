"""Chats: messages to a prompt through the model's own template, and the reply taken apart.

`sandbox` runs templates of strangers, `template` keeps the text of messages apart from control
tokens, `messages` checks what a caller passes, `reply` holds what comes back.
"""
