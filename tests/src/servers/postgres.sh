#!/bin/sh
# What clients expect of an image of PostgreSQL: a database, its user and password
# by the environment, files in $PGDATA. The server is the container's first process.
set -e
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres} password=/tmp/password
    mkdir -p "$PGDATA"
    echo "${POSTGRES_PASSWORD:?is not set}" > $password
    chown -R postgres:postgres "$PGDATA" $password
    su postgres -c "initdb --pgdata '$PGDATA' --username '$user' --pwfile $password \
        --auth trust --no-sync"
    rm $password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" |
            su postgres -c "postgres --single -D '$PGDATA' postgres" > /tmp/created
    fi
fi
[ "$1" = postgres ] || exec "$@"
shift
# shellcheck disable=SC2016
exec su postgres -s /bin/sh -c 'exec postgres -c "listen_addresses=*" "$@"' postgres "$@"
