#!/bin/sh
# Starts Dendrite as a homeserver of the conformance suite, with SQLite and the
# configuration that it generates for continuous integration. The contract is in
# ../dockerless/README.md. $DENDRITE_DIR has its programs; launch.sh says how to
# set such a variable.
set -eu

tls=$TMPDIR/tls
"$(dirname "$0")/certificate.sh" "$tls"
[ -e matrix_key.pem ] || "$DENDRITE_DIR/generate-keys" --private-key matrix_key.pem

registrations=
for file in /complement/appservice/*.yaml; do
	[ ! -e "$file" ] || registrations="$registrations${registrations:+, }\"$file\""
done
"$DENDRITE_DIR/generate-config" --server "$SERVER_NAME" --ci |
	sed -e "s|^  config_files: .*|  config_files: [$registrations]|" -e 's|level: trace|level: info|' >dendrite.yaml

exec "$DENDRITE_DIR/dendrite" --really-enable-open-registration \
	--tls-cert "$tls/server.crt" --tls-key "$tls/server.key" --config dendrite.yaml
