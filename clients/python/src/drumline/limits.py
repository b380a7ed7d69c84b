"""How long the client waits, and how much it takes at once. Times in seconds."""

from __future__ import annotations

# For a connection to a server.
CONNECT_SECONDS = 5.0
# For the answer to one call; longer than the server allows itself.
CALL_SECONDS = 40.0
# A stream is opened anew after so long, from where it was.
STREAM_SECONDS = 600.0
# How long a follower tries to come back to a server that went away.
PATIENCE_SECONDS = 60.0
# Between two such tries.
RECONNECT_PAUSE_SECONDS = 0.5
# Between two looks at a job that is waited for: first and longest.
POLL_FIRST_SECONDS = 0.02
POLL_LONGEST_SECONDS = 0.5
# A connection that says nothing is asked after so long, and given up if it does
# not answer within the other.
KEEPALIVE_SECONDS = 20.0
KEEPALIVE_ANSWER_SECONDS = 10.0
# Of one message from the server.
MESSAGE_BYTES_MAX = 64 << 20
# Of a job file, as the server has it.
JOB_FILE_BYTES_MAX = 1 << 20
# Jobs asked for at once.
JOBS_PAGE = 500
# Jobs whose specs are remembered for the names in a history.
SPECS_MAX = 256
# Downloads at the same time.
DOWNLOADS_MAX = 8
# Tries of one transfer that broke.
TRANSFER_TRIES = 3
# Of a transfer, without a byte moving.
TRANSFER_IDLE_SECONDS = 20.0
# From the last byte of an upload to its answer: the server digests and syncs.
TRANSFER_FINISH_SECONDS = 120.0
# Read, written and digested at once.
CHUNK_BYTES = 1 << 20
# Of the reason of a transfer that was refused.
REASON_BYTES_MAX = 4096
