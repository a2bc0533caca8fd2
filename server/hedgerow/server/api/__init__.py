"""The operator listener: fleet API with OpenAPI, tokens with roles, sessions for the dashboard, audit log."""
