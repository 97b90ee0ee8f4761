#!/bin/sh
# submit.sh RULE THREADS MEM_MB MINUTES GPUS QUEUE PROJECT PE MEMORY EXTRA JOBSCRIPT: submit one job, print its id.
# The job writes its exit code to results/sge_logs/<id>.exit, where status.sh finds it: qstat forgets finished jobs.
set -eu
rule=$1 threads=$2 mem=$3 minutes=$4 gpus=$5 queue=$6 account=$7 pe=$8 memory=$9
shift 9
extra=$1 script=$2
logs=$PWD/results/sge_logs
mkdir -p "$logs"
find "$logs" -name "*.exit" -mtime +10 -delete
# Memory counts per slot.
per_slot=$(((mem + threads - 1) / threads))
set -- -terse -N "dubito_$rule" -V -cwd -j y -o "$logs/" -r n -S /bin/sh -l "h_rt=$((minutes * 60))"
[ "$memory" = - ] || set -- "$@" -l "$memory=${per_slot}M"
[ "$threads" = 1 ] || [ "$pe" = - ] || set -- "$@" -pe "$pe" "$threads"
[ "$gpus" = 0 ] || set -- "$@" -l "gpu=$gpus"
[ "$queue" = - ] || set -- "$@" -q "$queue"
[ "$account" = - ] || set -- "$@" -P "$account"
# Several options in one word, as they were typed.
# shellcheck disable=SC2086
[ "$extra" = - ] || set -- "$@" $extra
qsub "$@" <<EOF
#!/bin/sh
# A name that no other job has, then the right one: a reader never sees half a file.
cd '$PWD' || exit 1
/bin/sh '$script'
code=\$?
echo \$code > '$logs'/.\$JOB_ID.\$\$ && mv '$logs'/.\$JOB_ID.\$\$ '$logs'/\$JOB_ID.exit
exit \$code
EOF
