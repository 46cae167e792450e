# A server returns as a standby. This runs on its own: the server that started it ends here.
# $1: its programs; $2: its data directory; $3: where its configuration is kept meanwhile;
# $4: conninfo of the primary to be rewound against, or nothing; $5: where the server runs, which is
# not $2 where that leads to a copy by now; the rest: the files that are its own.
set -u
bin=$1 data=$2 kept=$3 source=$4 runs_in=$5
shift 5
was_standby=; [ ! -e "$data/standby.signal" ] || was_standby=yes

say() { printf 'pg_nodes: %s\n' "$*"; }

start() { exec "$bin/pg_ctl" restart --pgdata="$data" --wait --timeout=86400 --silent; }

# With what went wrong in a file that the next start finds.
give_up() {
    say "$*" > "$data/pg_nodes.demote"
    [ -n "$was_standby" ] || rm -f "$data/standby.signal"
    rm -rf "$kept"
    start
}

# What is not the primary's: pg_rewind brings all files but those of tables as they are there.
keep() {
    for file in "$@"; do
        if [ -e "$data/$file" ]; then cp -Rp "$data/$file" "$kept/" || return 1; fi
    done
}

give_back() {
    for file in pg_nodes.passfile conf.d; do rm -rf "${data:?}/$file"; done
    cp -Rp "$kept/." "$data/" && sync "$data" && rm -rf "$kept"
}

"$bin/pg_ctl" stop --pgdata="$runs_in" --mode=fast --wait --timeout=86400 --silent ||
    { say 'the server did not stop'; exit 1; }
rm -f "$data/pg_nodes.demote"
if [ -n "$source" ]; then
    rm -rf "$kept"
    mkdir -m 700 "$kept" && keep "$@" || give_up 'the configuration could not be kept'
    # Says everything that can be known without changing anything.
    said=$("$bin/pg_rewind" --target-pgdata="$data" --source-server="$source" --dry-run 2>&1) ||
        give_up "pg_rewind: $said"
    "$bin/pg_rewind" --target-pgdata="$data" --source-server="$source" ||
        { say "pg_rewind failed half-way; the configuration is in $kept"; exit 1; }
    give_back || { say "the configuration could not be given back; it is in $kept"; exit 1; }
fi
: > "$data/standby.signal"
start
