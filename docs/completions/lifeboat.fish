# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lifeboat_global_optspecs
    string join \n config= json q/quiet v/verbose h/help V/version
end

function __fish_lifeboat_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lifeboat_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lifeboat_using_subcommand
    set -l cmd (__fish_lifeboat_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lifeboat -n "__fish_lifeboat_needs_command" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_needs_command" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -s V -l version -d 'Print version'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "init" -d 'Make the repository, the configuration file and the recovery kit'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "check" -d 'Say line by line what is ready, and how to mend what is not'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "backup" -d 'Take a backup now'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "list" -d 'List the backups: age, size, new bytes, migration, proof'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "show" -d 'Show one backup, whole'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "verify" -d 'Check that the newest backup, or ID, is fresh and readable; or a plain dump'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "restore" -d 'Restore a backup, by default into a new database beside the old one'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "drill" -d 'Prove a backup: restore it into a scratch server, compare, measure, remove'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "export" -d 'Write a backup as a custom-format file for pg_restore'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "import" -d 'Bring dumps of pg_dump -Fc into the repository, with their own dates'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "expire" -d 'Apply the retention policy, then remove the data that no backup needs'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "copy" -d 'Bring every other repository up to date with the backups it lacks'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "repair" -d 'Mend what is damaged with good copies from elsewhere; name what is lost'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "hold" -d 'Keep a backup from expiring'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "unhold" -d 'Let a held backup expire again'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "key" -d 'List, add, remove or rotate the passphrases that open the repository'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "recovery-kit" -d 'Write the recovery kit anew, or prove it by doing what it says'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "status" -d 'Hold the objectives against reality'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "demo" -d 'See all of it on a throwaway server, in two minutes'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c lifeboat -n "__fish_lifeboat_needs_command" -f -a "man" -d 'Print the manual page'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l recovery-kit -d 'Write the recovery kit into this folder' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l repository -d 'Make this configured repository (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l keys-of -d 'Make it with the master key of this configured repository (default: that of the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l separate-keys -d 'Make it with a master key of its own'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand init" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand check" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -l jobs -d 'Read over this many connections (default: one more than processors, at most 8)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand backup" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand list" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand show" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l subset -d 'Read a share, such as 1/30 or 5%: what was never read first, then what was read longest ago' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l max-proof-age -d 'How long what was read counts as read (default: 30d)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l max-age -d 'The oldest its snapshot of the database may be (default: 2h)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l dump-dir -d 'Check a folder of pg_dump files instead: the newest match of --glob' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l glob -d 'Which files of the folder are dumps, with `*` and `?` (default: *.dump)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l file -d 'Check this dump instead' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l read-data -d 'Read, open and hash the stored bytes of the whole repository: those that are new, and those that were not read for --max-proof-age. The journal remembers what was read, when and where'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l all -d 'Read everything again, whatever was read before'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand verify" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l to -d 'Restore into a new database of this name, beside the old one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l server -d 'Make the new database on this server, not on the source\'s' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l into -d 'Restore into this existing database' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l yes -d 'Confirm, by name, that this database may be changed' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l table -d 'Restore only this table; may be given several times' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l jobs -d 'Load over this many connections (default: one per processor)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l retry-lock -d 'Wait this long for whoever removes data from the repository, then go on beside it' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l clean -d 'Drop first what the backup holds, as pg_restore --clean --if-exists does'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l schema-only -d 'Restore definitions, no rows'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l data-only -d 'Restore rows into tables that exist'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l owner -d 'Keep the owners and grants of the backup (default: all belongs to the role that restores)'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand restore" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l on -d 'Use a temporary database on this server in place of a scratch server' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l jobs -d 'Load over this many connections (default: one per processor)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand drill" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -s o -l output -d 'The file to write. It must not exist' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -l retry-lock -d 'Wait this long for whoever removes data from the repository, then go on beside it' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand export" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l glob -d 'Which files of a folder' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l database -d 'The name that the backups go by (default: the one configured for the dump\'s database, else its own)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l time-zone -d 'The zone of the dumps\' own times: Europe/Berlin, UTC, +05:30' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l jobs -d 'Read this many tables at once (default: one per processor)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -s n -l dry-run -d 'Only show what would be done'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand import" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-last -d 'Keep the newest N' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-hourly -d 'Keep the newest of each of the last N hours that have one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-daily -d 'Keep the newest of each of the last N days that have one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-weekly -d 'Keep the newest of each of the last N weeks that have one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-monthly -d 'Keep the newest of each of the last N months that have one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-yearly -d 'Keep the newest of each of the last N years that have one' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l keep-within -d 'Keep all that are at most so much older than the newest: 30d, 2y5m7d3h (years, months, days, hours)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -s n -l dry-run -d 'Only show what would be done'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l no-prune -d 'Remove backups from the list, but leave their data for a later run'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand expire" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -l to -d 'Only this repository' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -l from -d 'Copy from this repository (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -s n -l dry-run -d 'Only show what would be copied'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand copy" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l from -d 'Take good copies from this repository: a configured name, or a location with the same passphrase. May be given several times (default: every other configured repository)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l yes -d 'Give up what is lost in the repository of this name, without asking' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l alone -d 'Ask no other repository'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -s n -l dry-run -d 'Only show what is damaged, and what would be done'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l trust-journal -d 'Do not read again what the journal remembers as read, and good, within `verify.max_proof_age`'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand repair" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l reason -d 'Why it must not expire' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l list -d 'List the backups that are held, and why'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand hold" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand unhold" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -f -a "list" -d 'List the keys: who made them, when, and which one is in use'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -f -a "add" -d 'Let a further passphrase open the repository'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -f -a "remove" -d 'Remove a key, so that its passphrase opens the repository no more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and not __fish_seen_subcommand_from list add remove rotate" -f -a "rotate" -d 'Replace the passphrase in use by a new one'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l new-password-file -d 'Take the new passphrase from this file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l generate -d 'Make a passphrase, and write it into this new file (mode 0600)' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -l yes -d 'Confirm, by the ID that `key list` shows, that it shall go' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -l new-password-file -d 'Take the new passphrase from this file, in place of a generated one' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -l retry-lock -d 'Wait this long for others that work on the repository before giving up with exit code 11' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand key; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -f -a "write" -d 'Write it anew: after the passphrase, the location or the databases changed'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and not __fish_seen_subcommand_from write test" -f -a "test" -d 'Prove it: bring the newest backups back with nothing but what stands in it'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -s o -l output -d 'Write into this folder (default: that of the configuration file)' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -l replace -d 'Replace an older kit. It may be the only way into copies of the repository with an older key'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -l with-credentials -d 'Put the access key to the bucket into the kit as well'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from write" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -l scratch-dir -d 'Start the scratch servers in this folder; it needs room for the database (default: the temporary folder)' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand recovery-kit; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -l database -d 'The database, when several are configured' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -l repository -d 'The repository, when several are configured (default: the first one)' -r
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand status" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand demo" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand demo" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand demo" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand demo" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand demo" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand completions" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand completions" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand completions" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand completions" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand completions" -s h -l help -d 'Print help'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand man" -l config -d 'Read this configuration file' -r -F
complete -c lifeboat -n "__fish_lifeboat_using_subcommand man" -l json -d 'Print one JSON object; progress becomes JSON lines on standard error'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand man" -s q -l quiet -d 'Say only what went wrong'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand man" -s v -l verbose -d 'Say more'
complete -c lifeboat -n "__fish_lifeboat_using_subcommand man" -s h -l help -d 'Print help'
