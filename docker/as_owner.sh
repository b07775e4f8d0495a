#!/bin/sh
# Run the command as the owner of the working directory, so that files written to a mounted folder are the caller's.
# With --user, or where root owns the folder, the user stays as it is.
if [ "$(id -u)" = 0 ]; then
    user=$(stat -c %u .) group=$(stat -c %g .)
    [ "$user" = 0 ] || exec setpriv --reuid="$user" --regid="$group" --clear-groups "$@"
fi
exec "$@"
