#!/bin/sh
# Makes server.key and server.crt for $SERVER_NAME in a directory. They are new
# at each start, because the authority may be another one: so the directory is
# below TMPDIR, which is not kept, while the working directory, /data, is.
set -eu
mkdir -p "$1"
cd "$1"
{
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch \
		-subj "/CN=$SERVER_NAME" -keyout server.key -out server.csr &&
		printf 'subjectAltName=DNS:%s\n' "$SERVER_NAME" >extensions &&
		openssl x509 -req -in server.csr -CA /complement/ca/ca.crt -CAkey /complement/ca/ca.key \
			-set_serial "0x$(openssl rand -hex 16)" -days 2 -extfile extensions -out server.crt
} 2>log || { cat log >&2 && exit 1; }
