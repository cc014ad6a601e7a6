# Makes an authority and a certificate for 127.0.0.1 in the given directory, as strict as Python 3.13 and later require.
cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=The lab' \
    -addext keyUsage=critical,keyCertSign -keyout authority.key -out authority.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr
cat >server.ext <<'EXTENSIONS'
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
EXTENSIONS
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 3650 -extfile server.ext \
    -out server.pem
