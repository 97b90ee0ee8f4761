#!/bin/sh
# status.sh ID: print running, success or failed.
# A job is over when it left its exit code, or when Grid Engine does not know it any more and no code appears for a
# minute (it was killed), or when it is in error. While the master does not answer, a job counts as running.
id=$1
logs=results/sge_logs
patience=${DUBITO_STATUS_PATIENCE_S:-60}
verdict() {
  rm -f "$logs/$id.gone"
  if [ "$1" = 0 ]; then echo success; else echo failed; fi
  exit 0
}
ls "$logs" >/dev/null 2>&1 # makes NFS look again
[ -s "$logs/$id.exit" ] && verdict "$(cat "$logs/$id.exit")"
said=$(qstat -j "$id" 2>&1)
case $said in
  *"do not exist"* | *"does not exist"*)
    now=$(date +%s)
    [ -s "$logs/$id.gone" ] || echo "$now" >"$logs/$id.gone"
    since=$(cat "$logs/$id.gone")
    [ $((now - since)) -ge "$patience" ] && verdict 1
    ;;
  *"error reason"*) # state Eqw: it would wait there for ever
    qdel "$id" >/dev/null 2>&1
    verdict 1
    ;;
  *) rm -f "$logs/$id.gone" ;;
esac
echo running
