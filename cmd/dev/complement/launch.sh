#!/bin/sh
# Starts Switchboard as a homeserver of the conformance suite. The contract is
# in ../dockerless/README.md. The program is $SWITCHBOARD_BIN; to set that
# variable from outside, use Complement's COMPLEMENT_SHARE_ENV_PREFIX, as
# ../conformance does.
set -eu
umask 077

# The certificate is new each time, because the authority may be another one.
# TMPDIR is not kept, while the working directory, /data, is.
tls=$TMPDIR/tls
mkdir -p "$tls"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch \
	-subj "/CN=$SERVER_NAME" -keyout "$tls/server.key" -out "$tls/server.csr" 2>"$tls/log" ||
	{ cat "$tls/log" >&2 && exit 1; }
printf 'subjectAltName=DNS:%s\n' "$SERVER_NAME" >"$tls/extensions"
openssl x509 -req -in "$tls/server.csr" -CA /complement/ca/ca.crt -CAkey /complement/ca/ca.key \
	-set_serial "0x$(openssl rand -hex 16)" -days 2 -extfile "$tls/extensions" -out "$tls/server.crt" 2>"$tls/log" ||
	{ cat "$tls/log" >&2 && exit 1; }

registrations=
for file in /complement/appservice/*.yaml; do
	[ ! -e "$file" ] || registrations="$registrations${registrations:+, }\"$file\""
done

cat >"$TMPDIR/switchboard.yaml" <<EOF
server_name: "$SERVER_NAME"
data_dir: /data
listeners:
  - address: 0.0.0.0:8008
    serve: [client]
  - address: 0.0.0.0:8448
    serve: [federation]
    tls:
      cert: $tls/server.crt
      key: $tls/server.key
registration:
  mode: open
  shared_secret: complement
rooms:
  default_version: "10" # the default of when the tests were written
media:
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
