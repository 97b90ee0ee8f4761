#!/bin/sh
# submit.sh RULE THREADS MEM_MB MINUTES GPUS QUEUE ACCOUNT EXTRA JOBSCRIPT: submit one job, print its id.
# The job writes its exit code to results/pbs_logs/<id>.exit, where status.sh finds it: PBS forgets finished jobs.
set -eu
rule=$1 threads=$2 mem=$3 minutes=$4 gpus=$5 queue=$6 account=$7 extra=$8 script=$9
logs=$PWD/results/pbs_logs
mkdir -p "$logs"
find "$logs" -name "*.exit" -mtime +10 -delete
select="select=1:ncpus=$threads:mem=${mem}mb"
[ "$gpus" = 0 ] || select="$select:ngpus=$gpus"
# Torque wants instead: -l "nodes=1:ppn=$threads,mem=${mem}mb" and no -l "$select".
set -- -N "dubito_$rule" -V -j oe -o "$logs/" -r n -l "$select" -l "walltime=$((minutes / 60)):$((minutes % 60)):00"
[ "$queue" = - ] || set -- "$@" -q "$queue"
[ "$account" = - ] || set -- "$@" -A "$account"
# Several options in one word, as they were typed.
# shellcheck disable=SC2086
[ "$extra" = - ] || set -- "$@" $extra
qsub "$@" <<EOF
#!/bin/sh
# A name that no other job has, then the right one: a reader never sees half a file.
cd '$PWD' || exit 1
/bin/sh '$script'
code=\$?
echo \$code > '$logs'/.\$PBS_JOBID.\$\$ && mv '$logs'/.\$PBS_JOBID.\$\$ '$logs'/\$PBS_JOBID.exit
exit \$code
EOF
