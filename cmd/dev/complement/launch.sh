#!/bin/sh
# Starts Switchboard as a homeserver of the conformance suite. The contract is
# in ../dockerless/README.md. The program is $SWITCHBOARD_BIN; to set that
# variable from outside, use Complement's COMPLEMENT_SHARE_ENV_PREFIX, as
# ../conformance does.
set -eu
umask 077

tls=$TMPDIR/tls
"$(dirname "$0")/certificate.sh" "$tls"

registrations=
for file in /complement/appservice/*.yaml; do
	[ ! -e "$file" ] || registrations="$registrations${registrations:+, }\"$file\""
done

cat >"$TMPDIR/switchboard.yaml" <<EOF
server_name: "$SERVER_NAME"
data_dir: /data
listeners:
  - address: 0.0.0.0:8008
    serve: [client, federation] # tests ask for both at either, and servers for media
  - address: 0.0.0.0:8448
    serve: [client, federation]
    tls:
      cert: $tls/server.crt
      key: $tls/server.key
registration:
  mode: open
  shared_secret: complement
rooms:
  default_version: "10" # the default of when the tests were written
media:
  previews: {enabled: true}
  unauthenticated: true # as it was then
federation:
  notaries: []
outbound:
  allow: ["0.0.0.0/0", "::/0"]
rate_limits:
  enabled: false
appservices:
  files: [$registrations]
EOF

# exec, so that the server gets the SIGTERM that stops it.
exec "$SWITCHBOARD_BIN" serve --config "$TMPDIR/switchboard.yaml"
