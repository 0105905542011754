"""The dashboard at `/`: one page, and the one stream of events that keeps it up to date."""
