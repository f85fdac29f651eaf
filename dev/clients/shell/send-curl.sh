#!/bin/sh
# curl, with its own retries: an NDJSON body for each turn. Usage: send-curl URL SENDER COUNT
set -eu
url=$1 sender=$2 count=$3
turn=20

# One event on each line, with an id.
events() { # events <first> <end>
  seq "$1" $(($2 - 1)) | awk -v sender="$sender" '{
    printf "{\"id\":\"%s-%d\",\"user\":\"%s-%d\",\"action\":\"Clicked\",\"number\":%d}\n", sender, $1, sender, $1 % 7, $1
  }'
}

first=0
while [ "$first" -lt "$count" ]; do
  read -r _
  end=$((first + turn < count ? first + turn : count))
  events "$first" "$end" | curl --silent --show-error --fail --max-time 30 --output /dev/null \
    --retry 100 --retry-delay 1 --retry-all-errors \
    --header 'Content-Type: application/x-ndjson' --header 'Prefer: handling=strict' \
    --data-binary @- "$url/api/v1/events"
  first=$end
done
