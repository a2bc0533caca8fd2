"""The dashboard: server-rendered pages, charts as inline SVG, one small script that swaps fragments when news arrive."""
