#!/bin/sh
# Starts Synapse as a homeserver of the conformance suite, in one process and
# with SQLite. The contract is in ../dockerless/README.md. $SYNAPSE_DIR is the
# Python environment that has it; launch.sh says how to set such a variable.
set -eu
umask 077

tls=$TMPDIR/tls
"$(dirname "$0")/certificate.sh" "$tls"

registrations=
for file in /complement/appservice/*.yaml; do
	[ ! -e "$file" ] || registrations="$registrations${registrations:+, }\"$file\""
done

any='{per_second: 10000, burst_count: 10000}'
cat >"$TMPDIR/homeserver.yaml" <<END
server_name: "$SERVER_NAME"
public_baseurl: http://127.0.0.1:8008/
report_stats: false
signing_key_path: /data/signing.key
media_store_path: /data/media
pid_file: $TMPDIR/pid
log_config: $TMPDIR/log.yaml
database: {name: sqlite3, args: {database: /data/synapse.db}}
listeners:
  - {type: http, port: 8008, bind_addresses: [0.0.0.0], resources: [{names: [client, federation]}]}
  - {type: http, port: 8448, bind_addresses: [0.0.0.0], tls: true, resources: [{names: [federation]}]}
tls_certificate_path: $tls/server.crt
tls_private_key_path: $tls/server.key
federation_custom_ca_list: [/complement/ca/ca.crt]
ip_range_blacklist: []
federation_ip_range_blacklist: []
trusted_key_servers: []
registration_shared_secret: complement
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
default_room_version: "10" # as launch.sh has it, and so the next one
enable_authenticated_media: false
caches: {sync_response_cache_duration: 0s} # many tests sync anew each time
allow_public_rooms_over_federation: true
room_list_publication_rules: [{action: allow}]
app_service_config_files: [$registrations]
rc_federation: {sleep_limit: 10000, reject_limit: 10000, concurrent: 100}
federation_rr_transactions_per_room_per_second: 10000
rc_message: $any
rc_registration: $any
rc_registration_token_validity: $any
rc_admin_redaction: $any
rc_joins_per_room: $any
rc_key_requests: $any
rc_room_creation: $any
rc_user_directory: $any
rc_login: {address: $any, account: $any, failed_attempts: $any}
rc_joins: {local: $any, remote: $any}
rc_invites: {per_room: $any, per_user: $any, per_issuer: $any}
rc_presence: {per_user: $any}
END
cat >"$TMPDIR/log.yaml" <<'END'
version: 1
disable_existing_loggers: false
formatters: {line: {format: "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}}
handlers: {out: {class: logging.StreamHandler, formatter: line}}
root: {level: INFO, handlers: [out]}
END

serve="$SYNAPSE_DIR/bin/python -m synapse.app.homeserver -c $TMPDIR/homeserver.yaml"
[ -e /data/signing.key ] || $serve --generate-keys
exec $serve
