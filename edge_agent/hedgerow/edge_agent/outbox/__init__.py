"""Events that wait for the server: committed first, deleted only after its acknowledgement."""
