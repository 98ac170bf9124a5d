#!/bin/sh
# Make the certificates that the TLS examples use, in examples/certs/:
# an authority, a server certificate for 127.0.0.1 and localhost, and a
# certificate for an agent.  For trying things out, not for production:
# the authority's key lies beside the others.
set -eu
umask 077
mkdir -p "$(dirname "$0")/certs"
cd "$(dirname "$0")/certs"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
    -subj "/CN=reverseproxy example authority" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.pem 2>/dev/null

issue() { # name, subject alternative names, extended key usage
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\nauthorityKeyIdentifier=keyid\n' "$2" "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

issue server "IP:127.0.0.1,DNS:localhost" serverAuth
issue agent "DNS:agent-1.example.com" clientAuth
rm -f ca.srl
chmod 644 ./*.pem
echo "made $(pwd): ca.pem, server.pem, server.key, agent.pem, agent.key"
