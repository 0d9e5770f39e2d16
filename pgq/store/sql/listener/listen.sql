-- Makes the session receive the notifications of a channel.
LISTEN "{channel}"
