"""The fleet's own certificate authority: who is a device of ours. Decisions are pure; files and sockets lie apart."""
