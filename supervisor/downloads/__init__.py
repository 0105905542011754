"""Model files from elsewhere: where they come from, their transfer, and the folder for them.

Nothing here is imported by a front that downloads nothing.
"""
