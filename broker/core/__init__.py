"""The service without I/O: accounts, sessions, mailboxes, and the commands over them."""
